from tests.unit.zoo.test_leases import *  # noqa: F403 - on PostgreSQL
