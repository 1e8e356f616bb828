from tests.unit.db.test_expansion import *  # noqa: F403 - on PostgreSQL
