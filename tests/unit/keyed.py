"""An application that asks for keys, and clients that have some."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from fastapi import FastAPI

from app.access import keys, workspaces
from app.db.isolation import confine
from app.errors import AlreadyExists
from app.settings import Settings
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing, InProcess, running_app

OWN = "own secret of the service's processes"


@contextmanager
def keyed_app(folder: Path, serving: FakeServing, **given: str) -> Iterator[FastAPI]:
    """The application on a fresh zoo, with keys."""
    given.setdefault("secret_key", seeds.SECRET_KEY)
    settings = Settings(data_dir=folder, serving_url="http://serving", require_keys=True, internal_key=OWN, **given)
    with running_app(settings, serving) as app:
        yield app


def new_key(zoo: Zoo, scopes: Collection[str], workspace: str = "default") -> tuple[str, str]:
    """Id and secret of a new key; its workspace is made if there is none."""
    with zoo.database.write() as session:
        with suppress(AlreadyExists):
            workspaces.create(session, workspace)
        confine(session, workspace)
        row, secret = keys.create(session, name="tester", scopes=scopes)
        return row.id, secret


@contextmanager
def client_of(app: FastAPI, secret: str | None) -> Iterator[httpx.Client]:
    """A client with a key, or without."""
    headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
    with (
        InProcess(app) as transport,
        httpx.Client(base_url="http://localhost:8000", transport=transport, headers=headers) as client,
    ):
        yield client
