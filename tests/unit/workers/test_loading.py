"""Images of a job: the right ones, each file decoded once, in memory of known size."""

import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from app.datasets import service as datasets
from app.datasets.images import decode_image
from app.datasets.service import Contents
from app.datasets.tables import DatasetRow
from app.process.resources import memory
from app.zoo import Zoo
from pnc_core.errors import DataError
from pnc_core.preprocessing import Geometry
from tests.unit import seeds
from tests.unit.datasets import parquets
from workers import loading
from workers.loading import load_images

SIZE = (3, 8, 8)
SEEN = [Geometry(SIZE)]


def registered(zoo: Zoo, content: bytes, contents: Contents | None = None) -> DatasetRow:
    """A dataset of this file; with `contents` it is not looked into."""
    with zoo.database.write() as session:
        upload = seeds.upload(session, zoo, content)
        found = contents or datasets.inspect(io.BytesIO(content), ["a", "b"])
        return datasets.register(session, name="pictures", upload_id=upload.id, contents=found)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every file that is decoded."""
    seen: list[bytes] = []
    monkeypatch.setattr(loading, "decode_image", lambda raw, *given: seen.append(raw) or decode_image(raw, *given))
    return seen


def mixed(rows: int = 90, distinct: int = 4) -> bytes:
    values = [parquets.picture(12, 20 * (row * 7 % distinct)) for row in range(rows)]
    return parquets.written(parquets.table(pa.array(values, pa.binary())), row_group_size=25, use_dictionary=False)


def test_images_of_the_wanted_classes_come_in_order_and_equal_files_are_decoded_once(
    zoo: Zoo, decoded: list[bytes]
) -> None:
    dataset = registered(zoo, mixed())
    images = load_images(zoo, dataset, ("x", "b", "a"), SEEN)
    assert images.labels.tolist() == [2 - row % 2 for row in range(90)]
    shades = [20 * (row * 7 % 4) for row in range(90)]
    assert images.images[:, 0, 0, 0].tolist() == shades
    assert len(decoded) == 4
    alone = load_images(zoo, dataset, ("b",), SEEN)
    assert torch.equal(alone.images, images.images[1::2])
    assert alone.labels.tolist() == [0] * 45


def test_a_sample_is_the_one_it_always_was(zoo: Zoo) -> None:
    dataset = registered(zoo, mixed(distinct=12))
    every, some = load_images(zoo, dataset, ("b",), SEEN), load_images(zoo, dataset, ("b",), SEEN, max_images=10)
    rows = sorted(np.random.default_rng(0).permutation(np.arange(1, 90, 2))[:10])
    assert torch.equal(some.images, every.images[[row // 2 for row in rows]])
    unlabelled = load_images(zoo, dataset, ("x",), SEEN, labelled=False)
    assert len(unlabelled) == 90
    assert unlabelled.labels.tolist() == [0] * 90


def test_without_an_image_of_the_classes_there_are_none(zoo: Zoo) -> None:
    assert len(load_images(zoo, registered(zoo, mixed()), ("x",), SEEN)) == 0


def test_an_image_that_cannot_be_decoded_costs_only_its_row(zoo: Zoo, decoded: list[bytes]) -> None:
    values = [parquets.picture(8, 9), None, parquets.picture(8, 7), parquets.picture(8, 5)[:50], b"words", None]
    dataset = registered(zoo, parquets.written(parquets.table(pa.array(values, pa.binary()))))
    notes: list[tuple[str, int]] = []
    images = load_images(zoo, dataset, ("b", "a"), SEEN, note=lambda text, count: notes.append((text, count)))
    assert images.images[:, 0, 0, 0].tolist() == [9, 7]
    assert images.labels.tolist() == [1, 1]
    assert notes[0][0].startswith("4 of 6 images cannot be decoded and are left out; row 1: expected an image")
    assert notes[0][1] == 4
    with pytest.raises(DataError, match=r"expected images, got none: 3 of 3 images .* row 1"):
        load_images(zoo, dataset, ("b",), SEEN)
    with zoo.database.write() as session:
        row = session.get_one(DatasetRow, dataset.id)
        row.unreadable, row.faults = 1, zlib.compress(b'[[0, "", "known"]]')
        session.flush()
    decoded.clear()
    with zoo.database.read() as session:
        images = load_images(zoo, session.get_one(DatasetRow, dataset.id), ("a",), SEEN, note=lambda *_: None)
    assert len(images) == 1
    assert values[0] not in decoded


@pytest.mark.parametrize("column", ["image.bytes", "label"])
def test_what_slips_in_unread_is_the_dataset_s_fault(zoo: Zoo, column: str) -> None:
    dataset = registered(zoo, parquets.broken_page(column), Contents(90, ("a", "b"), {"a": 45, "b": 45}))
    with pytest.raises(DataError, match=f"{dataset.id}.*row group 1 of 3, column {column}"):
        load_images(zoo, dataset, ("a", "b"), SEEN)


def test_too_many_pixels_are_refused_before_one_is_decoded(
    tmp_path: Path, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = seeds.new_zoo(tmp_path, max_pixel_bytes=90 * 192 - 1)
    dataset = registered(zoo, mixed())
    with pytest.raises(DataError, match=r"17280 bytes.*PNC_MAX_PIXEL_BYTES"):
        load_images(zoo, dataset, ("a", "b"), SEEN)
    assert decoded == []
    monkeypatch.setattr(memory, "room", lambda: memory.Room(limit=2 * 4096, free=2**30))
    with pytest.raises(MemoryError):  # another machine may have more
        load_images(zoo, dataset, ("a",), SEEN)
    zoo.close()


@pytest.mark.always
def test_six_hundred_rows_of_one_large_image_cost_one(tmp_path: Path) -> None:
    """In a process of its own, since memory that was once taken is not given back."""
    zoo = seeds.new_zoo(tmp_path)
    dataset = registered(zoo, parquets.bomb(600))
    zoo.close()
    program: Any = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from app.datasets import service as datasets\n"
        "from app.settings import Settings\n"
        "from app.zoo import open_zoo\n"
        "from pnc_core.preprocessing import Geometry\n"
        "from workers.loading import load_images\n"
        "zoo = open_zoo(Settings(data_dir=Path(sys.argv[1])))\n"
        "with zoo.database.read() as session: dataset = datasets.get(session, sys.argv[2])\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most()\n"
        "images = load_images(zoo, dataset, ('a', 'b'), [Geometry((3, 8, 8))])\n"
        "print(len(images), most() - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), dataset.id]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, memory = map(int, done.stdout.split())
    assert count == 600
    assert memory < 200 * 1024
    assert Image.open(io.BytesIO(parquets.picture(parquets.MEGAPIXEL))).size == (1155, 1155)
