from tests.unit.modules.test_signatures import *  # noqa: F403 - on PostgreSQL
