from tests.unit.store.test_uploads import *  # noqa: F403 - on PostgreSQL
