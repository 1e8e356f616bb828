from tests.unit.zoo.test_steps import *  # noqa: F403 - on PostgreSQL
