from tests.unit.zoo.test_pausing import *  # noqa: F403 - on PostgreSQL
