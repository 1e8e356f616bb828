from tests.unit.jobs.test_service import *  # noqa: F403 - on PostgreSQL
