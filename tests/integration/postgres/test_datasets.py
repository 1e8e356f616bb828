from tests.unit.zoo.test_datasets import *  # noqa: F403 - on PostgreSQL
