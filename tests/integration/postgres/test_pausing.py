from tests.unit.jobs.test_pausing import *  # noqa: F403 - on PostgreSQL
