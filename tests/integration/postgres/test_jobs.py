from tests.unit.zoo.test_jobs import *  # noqa: F403 - on PostgreSQL
