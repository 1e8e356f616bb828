from tests.unit.zoo.test_garbage import *  # noqa: F403 - on PostgreSQL
