from tests.unit.deployments.test_service import *  # noqa: F403 - on PostgreSQL
