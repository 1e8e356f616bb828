from tests.unit.lifecycle.test_purges import *  # noqa: F403 - on PostgreSQL
