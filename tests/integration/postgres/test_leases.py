from tests.unit.db.test_leases import *  # noqa: F403 - on PostgreSQL
