from tests.unit.workers.test_importing import *  # noqa: F403 - on PostgreSQL
