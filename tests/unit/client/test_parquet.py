import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.datasets import service as datasets
from pnc_client.parquet import write_parquet

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
