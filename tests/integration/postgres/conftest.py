"""Repeats unit tests on PostgreSQL: a module here imports the tests of the module with the same name in
`tests/unit`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.conftest import session  # noqa: F401 - a fixture


@pytest.fixture
def zoo(tmp_path: Path, postgres_url: str) -> Iterator[Zoo]:
    """An empty zoo on PostgreSQL."""
    zoo = seeds.new_zoo(tmp_path, database_url=postgres_url)
    yield zoo
    zoo.close()


@pytest.fixture
def empty_database_url(empty_postgres_url: str) -> str:
    """A database without schema."""
    return empty_postgres_url
