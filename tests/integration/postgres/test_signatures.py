from tests.unit.zoo.test_signatures import *  # noqa: F403 - on PostgreSQL
