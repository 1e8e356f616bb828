from tests.unit.compositions.test_service import *  # noqa: F403 - on PostgreSQL
