from tests.unit.db.test_archive import *  # noqa: F403 - on PostgreSQL
