from tests.unit.zoo.test_purges import *  # noqa: F403 - on PostgreSQL
