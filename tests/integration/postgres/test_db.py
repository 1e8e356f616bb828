from tests.unit.zoo.test_db import *  # noqa: F403 - on PostgreSQL
