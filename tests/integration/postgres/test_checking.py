from tests.unit.workers.test_checking import *  # noqa: F403 - on PostgreSQL
