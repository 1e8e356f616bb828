from tests.unit.zoo.test_archive import *  # noqa: F403 - on PostgreSQL
