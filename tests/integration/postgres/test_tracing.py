from tests.unit.process.test_tracing import *  # noqa: F403 - on PostgreSQL
