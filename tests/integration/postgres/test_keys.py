from tests.unit.access.test_keys import *  # noqa: F403 - on PostgreSQL
