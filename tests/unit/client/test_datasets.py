"""Datasets over HTTP and with the client: from a folder to warnings, and back to the file."""

import hashlib
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.datasets import inspections
from app.zoo import Zoo
from pnc_client import Client
from pnc_client.sources import Images, SourceError
from pnc_core.config import CloneConfig
from tests.unit import seeds
from workers.inspecting import run_inspection


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (10, 10, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of two digits: some are copies, some are damaged, and a note lies beside them."""
    for number in range(30):
        file = tmp_path / "Digits" / "78"[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number % 28))
    (tmp_path / "Digits" / "7" / "bad.jpg").write_bytes(b"words")
    (tmp_path / "Digits" / "7" / "old.heic").write_bytes(b"x")
    (tmp_path / "Digits" / "7" / "notes.txt").write_bytes(b"x")
    return tmp_path / "Digits"


def inspected(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        lease = inspections.claim(session, "worker-1")
    assert lease is not None
    run_inspection(zoo, lease, lambda: False)


def test_a_folder_becomes_a_dataset_with_warnings(client: Client, zoo: Zoo, folder: Path, tmp_path: Path) -> None:
    told: list[Images] = []
    pushed = client.datasets.push(folder, read=told.append)
    assert (pushed.name, pushed.rows, pushed.inspection, pushed.findings) == ("digits", 31, "waiting", None)
    assert [one.name for one in told[0].lost] == ["7/old.heic"]
    inspected(zoo)
    found = client.datasets.wait(pushed.id)
    assert (found.inspection, found.inspected, found.counts) == ("done", 31, {"7": 15, "8": 15})
    assert found.findings is not None
    assert (found.findings.good, found.findings.exact) == (30, 2)
    assert {one.code for one in found.findings.warnings} == {"unreadable_images", "duplicates"}
    (bad,) = client.datasets.unreadable(pushed.id)
    assert (bad.row, bad.name) == (15, "7/bad.jpg")
    assert "expected an image" in bad.reason
    back = client.datasets.download(pushed.id, tmp_path / "back.parquet")
    assert hashlib.sha256(back.read_bytes()).hexdigest() == found.digest


def test_strict_refuses_a_source_that_loses_images(client: Client, folder: Path) -> None:
    with pytest.raises(SourceError, match=r"1 that would be left out, such as 7/old\.heic: it is HEIC"):
        client.datasets.push(folder, strict=True)
    assert list(client.datasets.list()) == []


def test_images_without_class_folders_have_no_labels(client: Client, folder: Path) -> None:
    dataset = client.datasets.push(folder / "8", name="eights")
    assert (dataset.name, dataset.rows, dataset.classes, dataset.counts) == ("eights", 15, [], {})


def test_waiting_ends_with_advice_where_no_worker_runs(client: Client, folder: Path) -> None:
    dataset = client.datasets.push(folder)
    with pytest.raises(TimeoutError, match=r"got 0 of 31 images; is a worker running\?"):
        client.datasets.wait(dataset.id, timeout=0)


def test_bad_images_come_in_pages(http: httpx.Client, client: Client, zoo: Zoo, folder: Path) -> None:
    for number in range(5):
        (folder / "8" / f"bad{number}.png").write_bytes(b"words")
    dataset = client.datasets.push(folder)
    assert http.get(f"/v1/datasets/{dataset.id}/unreadable").json()["data"] == []
    inspected(zoo)
    first = http.get(f"/v1/datasets/{dataset.id}/unreadable", params={"limit": 4}).json()
    assert (len(first["data"]), first["has_more"]) == (4, True)
    rest = http.get(f"/v1/datasets/{dataset.id}/unreadable", params={"limit": 4, "after": first["next_cursor"]}).json()
    assert (len(rest["data"]), rest["has_more"], rest["next_cursor"]) == (2, False, None)
    assert http.get("/v1/datasets/ds_none/unreadable").status_code == 404
    assert http.get("/v1/datasets/ds_none/content").status_code == 404


def test_a_job_s_validation_says_what_is_odd(client: Client, zoo: Zoo, folder: Path) -> None:
    with zoo.database.write() as session:
        seeds.request(session, zoo)
    dataset = client.datasets.push(folder)
    config = CloneConfig(classes=("7", "8"), old_images=False)
    assert client.jobs.validate("low", "high", dataset.id, config).warnings == []
    with zoo.database.write() as session:  # the older dataset is not of this test
        first = inspections.claim(session, "worker-1")
        assert first is not None
        inspections.fail(session, first, {"code": "x", "detail": "x"})
    inspected(zoo)
    verdict = client.jobs.validate("low", "high", dataset.id, config)
    assert {one.code for one in verdict.warnings} >= {"unreadable_images", "duplicates"}
    assert client.jobs.validate("low", "high", "ds_none", config).warnings == []
