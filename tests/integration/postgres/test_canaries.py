from tests.unit.deployments.canary.test_service import *  # noqa: F403 - on PostgreSQL
