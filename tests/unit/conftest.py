"""Fixtures of all unit tests: a zoo of its own for each test, and the application in front of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy.orm import Session

from app.zoo import Zoo
from tests.unit import seeds

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tests.unit.inprocess import FakeServing


@pytest.fixture
def zoo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Zoo]:
    """An empty zoo whose schema the migrations made; the application's own where a test uses `app` or `http`."""
    if "app" in request.fixturenames:
        yield request.getfixturevalue("app").state.zoo
        return
    zoo = seeds.new_zoo(tmp_path)
    yield zoo
    zoo.close()


@pytest.fixture
def session(zoo: Zoo) -> Iterator[Session]:
    """One writing transaction on the zoo."""
    with zoo.database.write() as session:
        yield session


@pytest.fixture
def empty_database_url(tmp_path: Path) -> str:
    """A database without schema."""
    return f"sqlite:///{tmp_path}/new.db"


@pytest.fixture
def serving() -> "FakeServing":
    """The serving process, as far as the API can tell."""
    from tests.unit.inprocess import FakeServing  # loads FastAPI, which most tests do not need

    return FakeServing()


@pytest.fixture
def app(tmp_path: Path, serving: "FakeServing") -> "Iterator[FastAPI]":
    """The application on a fresh, migrated zoo."""
    from app.settings import Settings
    from tests.unit.inprocess import running_app

    settings = Settings(data_dir=tmp_path, serving_url="http://serving", max_body_bytes=20_000, max_image_bytes=1000)
    with running_app(settings, serving) as app:
        yield app


@pytest.fixture
def http(app: "FastAPI") -> Iterator[httpx.Client]:
    """A client of the application."""
    from tests.unit.inprocess import InProcess

    with InProcess(app) as transport, httpx.Client(base_url="http://localhost:8000", transport=transport) as client:
        yield client
