from tests.unit.zoo.test_isolation import *  # noqa: F403 - on PostgreSQL
