from tests.unit.zoo.test_deployments import *  # noqa: F403 - on PostgreSQL
