from tests.unit.zoo.test_uploads import *  # noqa: F403 - on PostgreSQL
