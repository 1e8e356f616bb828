from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.zoo.settings import Settings
from app.zoo.zoo import Zoo
from tests.unit.api.inprocess import FakeServing, InProcess, running_app


@pytest.fixture
def serving() -> FakeServing:
    """The serving process, as far as the API can tell."""
    return FakeServing()


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing) -> Iterator[FastAPI]:
    """The application on a fresh, migrated zoo."""
    settings = Settings(data_dir=tmp_path, serving_url="http://serving", max_body_bytes=20_000, max_image_bytes=1000)
    with running_app(settings, serving) as app:
        yield app


@pytest.fixture
def zoo(app: FastAPI) -> Zoo:
    """The application's zoo."""
    zoo = app.state.zoo
    assert isinstance(zoo, Zoo)
    return zoo


@pytest.fixture
def http(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the application."""
    with InProcess(app) as transport, httpx.Client(base_url="http://localhost:8000", transport=transport) as client:
        yield client
