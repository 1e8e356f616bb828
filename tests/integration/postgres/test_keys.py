from tests.unit.zoo.test_keys import *  # noqa: F403 - on PostgreSQL
