from tests.unit.zoo.test_replicas import *  # noqa: F403 - on PostgreSQL
