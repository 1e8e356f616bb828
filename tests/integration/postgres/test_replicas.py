from tests.unit.deployments.test_replicas import *  # noqa: F403 - on PostgreSQL
