"""Archive, restore and purge on the pages: the controls are there, and the question says what would go."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.datasets import inspections
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
    text = "".join(ElementTree.fromstring(f"<div>{dataset.content(row, {})}</div>").itertext())
    assert row.id in text
    assert "0 of 100 images decoded" in text
    assert "100" in text
    assert row.digest in text


def test_an_inspected_datasets_page_says_what_is_odd(app: FastAPI) -> None:
    zoo: Zoo = app.state.zoo
    with zoo.database.write() as session:
        row = session.scalars(select(DatasetRow)).one()
        lease = inspections.claim(session, "worker-1")
        assert lease is not None
        findings = {"good": 98, "exact": 4, "near": 0, "across": 1, "constant": 0, "examples": [[1, 5]],
                    "distinct": dict.fromkeys(row.classes, 9),
                    "sizes": {"shorter_smallest": 8, "shorter_median": 9, "shorter_largest": 10}}  # fmt: skip
        faults = [(3, "<b>.png", "expected an image, got a & b"), (7, "", "expected an image, got none")]
        inspections.finish(session, lease, findings, {**row.counts, "0": 8}, faults, {0: b"webp", 9: b"more"})
    with zoo.database.read() as session:
        row = session.scalars(select(DatasetRow)).one()
        page = dataset.content(row, inspections.samples(session, row.id))
    text = " ".join("".join(ElementTree.fromstring(f"<div>{page}</div>").itertext()).split())
    for words in (
        "98 of 100", "8 to 10 px, half at most 9 px", "2 of 100 images cannot be decoded", "<b>.png",
        "got a & b", "4 of 100 images are exact copies of others, such as rows 1 and 5", "Download the Parquet file",
        "1 images occur in several classes", "have fewer than 10 different images", "and 8 more classes",
    ):  # fmt: skip
        assert words in text
    assert "data:image/webp;base64,d2VicA==" in page


def test_a_purged_dataset_has_no_page(app: FastAPI) -> None:
    zoo: Zoo = app.state.zoo
    with zoo.database.write() as session:
        row = session.scalars(select(DatasetRow)).one()
        row.archived_at = row.created_at
    purges.purge(zoo, lambda session: session.scalars(select(DatasetRow)).one())
    with InProcess(app) as transport, httpx.Client(base_url="http://localhost:8000", transport=transport) as http:
        assert http.get(f"/v1/datasets/{row.id}").status_code == 404
