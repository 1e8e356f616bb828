from tests.unit.datasets.test_service import *  # noqa: F403 - on PostgreSQL
