import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.datasets import service as datasets
from pnc_client import Client
from pnc_client.parquet import folder_rows, write_parquet

ROWS = [("cat", b"\x89PNG 1"), ("dog", b"\x89PNG 2"), ("cat", b"\x89PNG 3")]


def test_the_service_reads_what_the_client_writes(tmp_path: Path) -> None:
    path = tmp_path / "animals.parquet"
    assert write_parquet(path, ROWS, ["cat", "dog", "owl"]) == 3
    with path.open("rb") as file:
        contents = datasets.inspect(file)
    assert contents.counts == {"cat": 2, "dog": 1, "owl": 0}


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    many = ROWS * 800  # more than one group
    for name in ("a", "b"):
        assert write_parquet(tmp_path / name, iter(many), ["cat", "dog"]) == 2400
    assert len({hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("a", "b")}) == 1


def test_large_images_are_written_a_few_at_a_time(tmp_path: Path) -> None:
    held: list[int] = []
    alive: set[int] = set()

    class Image(bytes):
        def __del__(self) -> None:
            alive.discard(id(self))

    def rows() -> Iterator[tuple[str, bytes]]:
        for _ in range(40):
            image = Image(4 * 2**20)
            alive.add(id(image))
            held.append(len(alive))
            yield "cat", image

    assert write_parquet(tmp_path / "x", rows(), ["cat"]) == 40
    assert max(held) <= 10  # 32 MiB, and what is in passing
    assert pq.read_metadata(tmp_path / "x").num_row_groups == 5


def test_a_class_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'dog'"):
        write_parquet(tmp_path / "x", ROWS, ["cat"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One directory a class, and things that are none."""
    root = tmp_path / "Pets"
    for name, content in (("cat/1.png", b"1"), ("cat/2.JPG", b"2"), ("dog/1.webp", b"3"), ("cat/notes.txt", b"x")):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (root / "empty").mkdir()
    (root / "readme").write_text("x")
    return root


def test_a_folder_of_class_folders_is_a_dataset(folder: Path) -> None:
    classes, rows = folder_rows(folder)
    assert classes == ["cat", "dog"]
    assert list(rows) == [("cat", b"1"), ("cat", b"2"), ("dog", b"3")]


def test_what_a_system_leaves_behind_is_no_image(folder: Path) -> None:
    for name in (".thumbnails/1.png", "__MACOSX/1.png", "cat/._1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    classes, rows = folder_rows(folder)
    assert classes == ["cat", "dog"]
    assert len(list(rows)) == 3


def test_a_folder_can_be_pushed(client: Client, folder: Path) -> None:
    dataset = client.datasets.push(folder)
    assert (dataset.name, dataset.counts) == ("pets", {"cat": 2, "dog": 1})


def test_images_without_class_folders_are_a_dataset_without_labels(client: Client, folder: Path) -> None:
    dataset = client.datasets.push(folder / "cat")
    assert (dataset.rows, dataset.classes, dataset.counts) == (2, [], {})
    (folder / "cover.png").write_bytes(b"x")
    assert folder_rows(folder)[0] == ["cat", "dog"]  # what lies beside class folders is none of theirs


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="one directory per class"):
        folder_rows(tmp_path)
