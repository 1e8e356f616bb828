from tests.unit.zoo.test_tracing import *  # noqa: F403 - on PostgreSQL
