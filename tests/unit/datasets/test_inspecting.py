"""A child that dies costs the image that it was at; too many deaths cost the file."""

import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from app.datasets import inspecting
from app.datasets.inspecting import SAMPLES, Best, Inspectors, _Place, pack, unpack
from app.datasets.looking import BAD, TILE
from pnc_core.errors import DataError
from tests.unit.datasets import parquets


class Dying:
    """Answers as a child does, in this process, and dies at some rows."""

    def __init__(self, deadly: Collection[int]) -> None:
        self.deadly, self.asked, self._place = deadly, 0, _Place()

    def ask(self, head: bytes, body: bytes) -> tuple[bytearray, bytearray]:
        self.asked += 1
        asked = json.loads(head)
        if any(asked["start"] <= row < min(asked["end"], asked["start"] + asked["most"]) for row in self.deadly):
            self._place = _Place()
            raise ConnectionError("expected more bytes, got a closed socket")
        answer, content = self._place.answer(bytearray(head), bytearray(body))
        return bytearray(answer), bytearray(content)


def file_of(tmp_path: Path, count: int) -> Path:
    values = []
    for seed in range(count):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)).save(file, "PNG")
        values.append(file.getvalue())
    path = tmp_path / "x.parquet"
    path.write_bytes(parquets.written(parquets.table(pa.array(values, pa.binary())), row_group_size=7))
    return path


def inspectors(path: Path, pool: Any, count: int) -> Inspectors:
    made = Inspectors(path, np.arange(count) % 2, 1)
    made._pool = pool
    return made


def test_the_rows_at_which_a_child_dies_are_found(tmp_path: Path) -> None:
    pool, seen = Dying({4, 11}), list[int]()
    found = inspectors(file_of(tmp_path, 20), pool, 20).look_at(2, 19, seen.append)
    facts = np.concatenate(found.facts)
    assert facts["row"].tolist() == list(range(2, 19))
    assert facts["row"][facts["state"] == BAD].tolist() == [4, 11]
    assert sorted(found.faults) == [4, 11]
    assert "ended its process (ConnectionError)" in found.faults[4]
    assert (facts["height"][0], facts["width"][0]) == (6, 9)
    assert sum(seen) == 17


def test_a_file_of_deadly_images_is_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "MOST_DEATHS", 3)
    with pytest.raises(DataError, match="more than 3 that end the process"):
        inspectors(file_of(tmp_path, 20), Dying(range(20)), 20).look_at(0, 20, lambda _: None)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(parquets.broken_page("image.bytes"))
    with pytest.raises(DataError, match=r"row group 1 of 3, column image\.bytes"):
        inspectors(path, Dying(()), 90).look_at(0, 90, lambda _: None)


def test_a_part_is_kept_whole(tmp_path: Path) -> None:
    found = inspectors(file_of(tmp_path, 12), Dying({3}), 12).look_at(0, 12, lambda _: None)
    again = unpack(pack(found))
    assert np.array_equal(again.facts[0], np.concatenate(found.facts))
    assert (again.faults, again.tiles) == (found.faults, found.tiles)
    assert {len(picture) for _, picture in again.tiles.values()} == {TILE * TILE * 3}


def test_samples_do_not_depend_on_the_order(tmp_path: Path) -> None:
    digests = [int(value) for value in np.random.default_rng(0).integers(0, 2**60, 100)]
    chosen = []
    for order in (range(100), reversed(range(100))):
        best = Best()
        for row in order:
            best.takes(0, digests[row], row)
            best.takes(0, digests[row], row)
        chosen.append(best.rows()[0])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == SAMPLES
    assert sorted(digests)[:SAMPLES] == [digests[row] for row in chosen[0]]
    assert not Best().takes(10**6, 1, 1)


def test_rows_come_from_where_they_are_asked_for(tmp_path: Path) -> None:
    from app.datasets.parquet import ImageTable

    images = [b"%d" % row for row in range(25)]
    column = pa.array(images, pa.binary())
    paths = pa.array([None if row % 5 else f"cat/{row}.png" for row in range(25)], pa.string())
    image = pa.StructArray.from_arrays([column, paths], ["bytes", "path"])
    path = tmp_path / "x.parquet"
    path.write_bytes(parquets.written(pa.table({"image": image, "label": pa.array([0] * 25)}), row_group_size=6))
    table = ImageTable(path)
    assert list(table.images_from(4, 20)) == [(row, b"%d" % row) for row in range(4, 20)]
    assert list(table.images_from(24, 25)) == [(24, b"24")]
    assert table.names_of([0, 1, 10, 24]) == {0: "cat/0.png", 10: "cat/10.png"}
    assert table.group_rows == [6, 6, 6, 6, 1]
