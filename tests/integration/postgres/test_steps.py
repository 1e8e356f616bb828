from tests.unit.jobs.test_steps import *  # noqa: F403 - on PostgreSQL
