"""Parquet is read with bounds on bytes, whatever the file says of itself, and errors say where."""

import errno
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from app.datasets import parquet, sandbox
from app.datasets import service as datasets
from app.datasets.parquet import BATCH_BYTES, ImageTable
from app.errors import Invalid
from tests.unit.datasets import parquets

MB = 1024**2


@pytest.mark.parametrize(("content", "said"), [pytest.param(c, s, id=n) for n, c, s in parquets.unreadable()])
def test_what_cannot_be_read_is_refused_with_row_group_and_column(content: bytes, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        datasets.inspect(io.BytesIO(content))
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.code) == ("/upload", "invalid_parquet")
    assert said in problem.detail


def test_a_child_of_little_memory_refuses_it_in_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"row group 1 of 3, column image\.bytes"):
        sandbox.inspect(io.BytesIO(parquets.broken_page("image.bytes")), None, tmp_path)


def _read(content: bytes) -> list[bytes | None]:
    found: list[bytes | None] = []
    for batch in ImageTable(io.BytesIO(content)).batches():
        assert batch.first == len(found)
        assert batch.indices is not None
        assert batch.values is not None
        found += [None if i is None else batch.values[i].as_py() for i in batch.indices.to_pylist()]
    return found


VALUES = [parquets.picture(20, shade % 7) if shade % 5 else None for shade in range(100)]
OPTIONS: list[dict[str, Any]] = [
    {"use_dictionary": False},
    {"use_dictionary": True, "dictionary_pagesize_limit": 3000},  # falls back to plain pages
    {"use_dictionary": True, "row_group_size": 30, "data_page_version": "2.0"},
    {"use_dictionary": True, "data_page_size": 2000, "store_schema": False},
]


@pytest.mark.parametrize("small", [True, False], ids=["small groups", "large groups"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), "dictionary"], ids=str)
def test_every_encoding_gives_the_same_images(kind: Any, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(parquet, "BATCH_BYTES", 1)
        monkeypatch.setattr(parquet, "LARGE_ROWS", 7)
    plain = pa.array(VALUES, pa.binary() if kind == "dictionary" else kind)
    for options in OPTIONS:
        if kind == pa.binary_view() and "row_group_size" in options:
            continue  # Arrow cannot write it
        images = plain.dictionary_encode() if kind == "dictionary" else plain
        content = parquets.written(parquets.table(images), **options)
        assert _read(content) == VALUES
        assert datasets.inspect(io.BytesIO(content), ["a", "b"]).counts == {"a": 50, "b": 50}


def test_columns_with_dots_in_their_names_are_left_alone() -> None:
    table = parquets.table(pa.array([b"png"] * 4, pa.binary()))
    more = table.append_column("label.more", pa.array([9] * 4)).append_column("image.bytes", pa.array([b"x"] * 4))
    content = parquets.written(more)
    assert _read(content) == [b"png"] * 4
    assert datasets.inspect(io.BytesIO(content)).counts == {"a": 2, "b": 2}


GREEDY = {
    "one image in every row": lambda: parquets.bomb(600),
    "one image in a million rows": lambda: parquets.bomb(1_000_000),
    "a page that says it has a million values": lambda: parquets.miscounted(1_000_000),
    "a large group of large images": lambda: parquets.written(
        parquets.table(pa.array([parquets.picture(600, shade) for shade in range(200)], pa.binary())),
        use_dictionary=False,
        compression="zstd",
    ),
}


@pytest.mark.parametrize("make", [*GREEDY.values()], ids=[*GREEDY])
def test_images_take_little_memory_whatever_refers_to_them(make: Any, tmp_path: Path) -> None:
    """In a process of its own, since memory that was once taken is not given back."""
    path = tmp_path / "file.parquet"
    path.write_bytes(make())
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from app.datasets import service as datasets\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most()\n"
        "with open(sys.argv[1], 'rb') as file: rows = datasets.inspect(file, ['a', 'b']).rows\n"
        "print(rows, most() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    rows, memory = map(int, done.stdout.split())
    assert rows >= 200
    assert memory * 1024 < 5 * BATCH_BYTES


def test_a_dataset_has_so_many_bytes_at_most(tmp_path: Path) -> None:
    content = parquets.written(parquets.table(pa.array([parquets.picture(100, s) for s in range(50)], pa.binary())))
    with pytest.raises(Invalid, match="PNC_MAX_DATASET_BYTES") as refused:
        sandbox.inspect(io.BytesIO(content), None, tmp_path, MB)
    assert refused.value.problems[0].code == "too_many_bytes"
    assert sandbox.inspect(io.BytesIO(content), None, tmp_path, 2 * MB).rows == 50
    assert sandbox.inspect(io.BytesIO(parquets.bomb(600)), ["a", "b"], tmp_path, 5 * MB).rows == 600  # one image, once


@pytest.mark.always
def test_what_would_take_the_child_s_memory_is_refused(tmp_path: Path) -> None:
    """Four images of 27 MB in two thousand rows: too much to be read as a small group, and each costs its bytes."""
    content = parquets.repeated(2000, [parquets.picture(3000, shade) for shade in range(4)])
    with pytest.raises(Invalid, match="can be read within"):
        sandbox.inspect(io.BytesIO(content), ["a", "b"], tmp_path)


def test_a_file_of_countless_groups_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_GROUPS", 9)
    content = parquets.written(parquets.table(pa.array([b"png"] * 20, pa.binary())), row_group_size=2)
    with pytest.raises(Invalid, match="at most 9 row groups, got 10"):
        datasets.inspect(io.BytesIO(content))


def test_a_disk_that_fails_is_not_the_file_s_fault() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as failed:
        datasets.inspect(Failing(parquets.bomb(2)), ["a", "b"])
    assert failed.value.errno == errno.EIO
