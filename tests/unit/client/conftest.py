from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.models import architectures
from app.settings import Settings
from app.zoo import Zoo
from pnc_client import Client
from tests.unit.client.breaking import Breaking
from tests.unit.inprocess import FakeServing, InProcess, running_app


@pytest.fixture
def serving() -> FakeServing:
    """The serving process, as far as the API can tell."""
    return FakeServing()


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """The application on a fresh, migrated zoo; it knows the architecture of the seeds alone."""
    monkeypatch.setattr(architectures, "_names", ["plain"])
    settings = Settings(data_dir=tmp_path / "zoo", serving_url="http://serving")
    with running_app(settings, serving) as app:
        yield app


@pytest.fixture
def zoo(app: FastAPI) -> Zoo:
    """The application's zoo."""
    zoo = app.state.zoo
    assert isinstance(zoo, Zoo)
    return zoo


@pytest.fixture
def line(app: FastAPI) -> Iterator[Breaking]:
    """The connection to the application; a test can break it."""
    with InProcess(app) as transport:
        yield Breaking(transport)


@pytest.fixture
def client(line: Breaking) -> Iterator[Client]:
    """A client that notes its pauses instead of making them."""
    with Client("http://localhost:8000", transport=line, sleep=line.pauses.append) as client:
        yield client
