from tests.unit.deployments.test_reports import *  # noqa: F403 - on PostgreSQL
