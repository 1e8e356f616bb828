from tests.unit.zoo.test_upgrades import *  # noqa: F403 - on PostgreSQL
