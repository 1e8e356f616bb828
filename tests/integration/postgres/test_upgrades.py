from tests.unit.db.test_upgrades import *  # noqa: F403 - on PostgreSQL
