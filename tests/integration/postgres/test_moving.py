"""A zoo moves from SQLite to PostgreSQL."""

from tests.unit.test_moving import *  # noqa: F403 - on PostgreSQL
