from tests.unit.db.test_engine import *  # noqa: F403 - on PostgreSQL
