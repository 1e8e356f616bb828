from tests.unit.deployments.test_canaries import *  # noqa: F403 - on PostgreSQL
