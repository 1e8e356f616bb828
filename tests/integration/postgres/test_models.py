from tests.unit.zoo.test_models import *  # noqa: F403 - on PostgreSQL
