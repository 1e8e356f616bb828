from tests.unit.workers.test_checkpoints import *  # noqa: F403 - on PostgreSQL
