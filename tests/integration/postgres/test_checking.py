from tests.unit.workers.networks.test_checking import *  # noqa: F403 - on PostgreSQL
