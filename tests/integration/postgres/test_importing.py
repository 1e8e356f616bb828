from tests.unit.workers.networks.test_importing import *  # noqa: F403 - on PostgreSQL
