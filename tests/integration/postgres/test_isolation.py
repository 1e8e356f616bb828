from tests.unit.db.test_isolation import *  # noqa: F403 - on PostgreSQL
