from tests.unit.zoo.test_webhooks import *  # noqa: F403 - on PostgreSQL
