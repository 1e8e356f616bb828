"""No operation of the API shows or changes another workspace, on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.unit.access.test_workspaces import (  # noqa: F401 - a fixture and tests
    test_an_unknown_id_and_a_foreign_one_get_the_same_answer,
    test_no_operation_tells_of_or_touches_another_workspace,
    theirs,
)
from tests.unit.conftest import serving  # noqa: F401 - a fixture
from tests.unit.inprocess import FakeServing
from tests.unit.keyed import keyed_app


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing, postgres_url: str) -> Iterator[FastAPI]:  # noqa: F811
    """The application on PostgreSQL, with required keys."""
    with keyed_app(tmp_path, serving, database_url=postgres_url) as app:
        yield app
