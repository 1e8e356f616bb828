"""Every image is decoded once, bad ones cost only their rows, and an interrupted inspection goes on."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from app.datasets import inspections
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow, PartRow, SampleRow
from app.db.leases import Lease
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.datasets import parquets
from workers import inspecting
from workers.inspecting import run_inspection, stretches


def png(seed: int, size: int = 20) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def registered(zoo: Zoo, images: list[bytes | None], *, group: int = 10, labels: bool = True) -> DatasetRow:
    table = parquets.table(pa.array(images, pa.binary()))
    content = parquets.written(table if labels else table.drop_columns("label"), row_group_size=group)
    with zoo.database.write() as session:
        upload = seeds.upload(session, zoo, content)
        found = datasets.inspect(io.BytesIO(content))
        return datasets.register(session, name="pictures", upload_id=upload.id, contents=found)


def claimed(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        lease = inspections.claim(session, "worker-1")
    assert lease is not None
    return lease


def inspected(zoo: Zoo, dataset: DatasetRow) -> DatasetRow:
    run_inspection(zoo, claimed(zoo), lambda: False)
    with zoo.database.read() as session:
        found = datasets.get(session, dataset.id)
        assert inspections.faults_of(found) is not None  # loads the deferred column
        return found


def test_counts_are_those_of_images_that_can_be_decoded(zoo: Zoo) -> None:
    images = [png(seed) for seed in range(40)]
    images[3], images[4], images[20] = png(3)[:-40], b"words", images[0]
    images[6] = None  # type: ignore[call-overload]
    found = inspected(zoo, registered(zoo, [*images]))
    assert (found.inspection, found.inspected, found.unreadable, found.rows) == ("done", 40, 3, 40)
    assert found.counts == {"a": 18, "b": 19}
    assert [row for row, _, _ in inspections.faults_of(found)] == [3, 4, 6]
    assert found.findings is not None
    assert (found.findings["exact"], found.findings["near"], found.findings["constant"]) == (1, 0, 0)
    assert found.findings["examples"] == [[0, 20]]
    assert found.findings["distinct"] == {"a": 17, "b": 19}
    assert found.findings["sizes"]["shorter_median"] == 20
    assert [warning["code"] for warning in found.findings["warnings"]] == ["unreadable_images", "duplicates"]
    assert "row 3: expected an image" in found.findings["warnings"][0]["detail"]
    with zoo.database.read() as session:
        assert session.query(PartRow).count() == 0
        strips = inspections.samples(session, found.id)
    assert {label: Image.open(io.BytesIO(strip)).size for label, strip in strips.items()} == {
        0: (512, 64),
        1: (512, 64),
    }


def test_an_interrupted_inspection_goes_on_where_it_was(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "ROWS", 10)
    dataset = registered(zoo, [png(seed % 33) for seed in range(60)])
    with zoo.database.write() as session:
        lease = inspections.claim(session, "worker-1")
    assert lease is not None
    kept: list[int] = []
    keep = inspecting._keep
    monkeypatch.setattr(inspecting, "_keep", lambda *given: kept.append(given[2]) or keep(*given))
    run_inspection(zoo, lease, lambda: len(kept) >= 2)
    with zoo.database.write() as session:
        assert session.get_one(DatasetRow, dataset.id).inspection == "waiting"
        inspections.release(session, lease)
    before = [*kept]
    found = inspected(zoo, dataset)
    assert sorted(kept) == [0, 10, 20, 30, 40, 50]
    assert len(before) < 6
    assert found.inspected == 60
    assert found.findings is not None
    assert found.findings["exact"] == 27


def test_an_image_that_ends_its_process_is_found(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = [png(seed) for seed in range(12)]
    huge = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(huge, "PNG")
    images[7] = huge.getvalue()
    monkeypatch.setattr("app.datasets.inspecting.MEMORY", 600 * 2**20)  # a child of its own limits ends of it
    found = inspected(zoo, registered(zoo, [*images]))
    assert [row for row, _, _ in inspections.faults_of(found)] == [7]
    assert found.counts == {"a": 6, "b": 5}


def test_images_without_labels_have_samples_and_findings(zoo: Zoo) -> None:
    found = inspected(zoo, registered(zoo, [png(seed) for seed in range(5)], labels=False))
    assert found.findings is not None
    assert (found.counts, found.findings["good"], found.findings["warnings"]) == ({}, 5, [])
    with zoo.database.read() as session:
        assert [*inspections.samples(session, found.id)] == [-1]


def test_a_dataset_of_bad_images_is_said_to_be_one(zoo: Zoo) -> None:
    found = inspected(zoo, registered(zoo, [b"x"] * 4))
    assert (found.unreadable, found.counts) == (4, {"a": 0, "b": 0})
    assert found.findings is not None
    assert found.findings["sizes"] == {}


def test_a_lost_lease_ends_the_inspection_and_archived_datasets_wait(zoo: Zoo) -> None:
    dataset = registered(zoo, [png(1)])
    claimed(zoo)
    with zoo.database.write() as session:
        assert inspections.claim(session, "worker-2") is None
        row = session.get_one(DatasetRow, dataset.id)
        for _ in range(3):
            row.lease_worker, row.lease_expires_at = "worker-1", row.created_at
            session.flush()
            assert inspections.sweep(session, 3) == 1
        assert (row.inspection, (row.problem or {})["code"]) == ("failed", "attempts_exhausted")
    other = registered(zoo, [png(2)])
    with zoo.database.write() as session:
        datasets.set_archived(session, other.id, archived=True)
        assert inspections.claim(session, "worker-2") is None


def test_a_purge_leaves_nothing_of_an_inspection(zoo: Zoo) -> None:
    found = inspected(zoo, registered(zoo, [png(seed) for seed in range(4)]))
    with zoo.database.write() as session:
        row = session.get_one(DatasetRow, found.id)
        inspections.forget(session, row)
        session.flush()
        assert session.query(SampleRow).count() == 0
        assert (row.findings, row.faults) == (None, None)


@pytest.mark.parametrize(
    ("groups", "parts"),
    [
        ([], []), ([10], [(0, 10)]), ([1000, 1000, 1000], [(0, 2000), (2000, 3000)]), ([0, 5, 0], [(0, 5)]),
        ([5000], [(0, 2048), (2048, 4096), (4096, 5000)]),
        ([10, 5000, 10], [(0, 10), (10, 2058), (2058, 4106), (4106, 5010), (5010, 5020)]),
    ],
)  # fmt: skip
def test_parts_are_whole_groups_or_pieces_of_large_ones(groups: list[int], parts: list[tuple[int, int]]) -> None:
    assert list(stretches(groups)) == parts
    assert len(list(stretches([10**6]))) == 16
