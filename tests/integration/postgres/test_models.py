from tests.unit.models.test_service import *  # noqa: F403 - on PostgreSQL
