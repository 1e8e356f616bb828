from tests.unit.workers.test_inspecting import *  # noqa: F403 - on PostgreSQL
