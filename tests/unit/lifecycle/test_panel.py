"""Archive, restore and purge on the pages: the controls are there, and the question says what would go."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.datasets import page as dataset
from app.datasets.tables import DatasetRow
from app.lifecycle import panel, purges
from app.modules import service as modules
from app.modules.tables import ModuleRow
from app.settings import Settings
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing, InProcess, running_app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    """The application with its pages, and a module."""
    with running_app(Settings(data_dir=tmp_path), FakeServing()) as app:
        zoo: Zoo = app.state.zoo
        with zoo.database.write() as session:
            seeds.module(session, zoo)
        yield app


def test_the_question_names_what_goes_and_what_stands_in_the_way(app: FastAPI) -> None:
    zoo: Zoo = app.state.zoo

    def find(session: object) -> ModuleRow:
        return session.scalars(select(ModuleRow)).one()  # type: ignore[attr-defined]

    planned = purges.plan(zoo, find)
    text = "".join(ElementTree.fromstring(f"<div>{panel.shown(planned)}</div>").itertext())
    assert "archive it first" in text
    assert "cannot be undone" not in text
    with zoo.database.write() as session:
        modules.set_archived(session, planned.id, archived=True)
    planned = purges.plan(zoo, find)
    text = "".join(ElementTree.fromstring(f"<div>{panel.shown(planned)}</div>").itertext())
    assert "cannot be undone" in text
    assert all(f"{one.digest[:12]}…" in text for one in planned.objects)
    assert "will be deleted" in text


def test_a_datasets_page_draws_its_classes(app: FastAPI) -> None:
    zoo: Zoo = app.state.zoo
    with zoo.database.read() as session:
        row = session.scalars(select(DatasetRow)).one()
    text = "".join(ElementTree.fromstring(f"<div>{dataset.content(row)}</div>").itertext())
    assert row.id in text
    assert "100" in text
    assert row.digest in text


def test_a_purged_dataset_has_no_page(app: FastAPI) -> None:
    zoo: Zoo = app.state.zoo
    with zoo.database.write() as session:
        row = session.scalars(select(DatasetRow)).one()
        row.archived_at = row.created_at
    purges.purge(zoo, lambda session: session.scalars(select(DatasetRow)).one())
    with InProcess(app) as transport, httpx.Client(base_url="http://localhost:8000", transport=transport) as http:
        assert http.get(f"/v1/datasets/{row.id}").status_code == 404
