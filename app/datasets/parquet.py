"""Images and labels out of a Parquet file, in batches of bounded bytes.

How many bytes a row takes is not to be seen: a column may hold one value and refer to it a million times. A row group
that says it is small is read as indices and distinct values, so that a value costs its bytes once; a large one
is read few rows at a time. Whatever Arrow cannot read is the file's fault, and the error names row group and column.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BATCH_BYTES = 64 * 1024**2
"""Bytes of images that are held at once, as far as the file's own figures are true."""
SMALL_ROWS, LARGE_ROWS = 16_384, 64
"""Rows of a batch, of a row group with at most `BATCH_BYTES` of images and of one with more: rows differ in size."""
MAX_GROUPS = 100_000
"""Row groups of a file; each is looked at by itself."""
IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label")
"""Usual names of the columns of images and labels; other names count if the file's metadata describe one column so."""
_OPTIONS: dict[str, Any] = {"pre_buffer": False, "buffer_size": 1024**2}
"""Nothing is read ahead: a column is decoded page by page, whatever the footer says of its size."""


class Unreadable(ValueError):
    """A file cannot be read as Parquet with these columns; the message says where and why."""


@dataclass(frozen=True)
class Batch:
    """Some rows, one after another."""

    first: int
    """Number of the first one in the file."""
    labels: "pa.Array[Any] | None"
    """Integers; None: they were not asked for."""
    indices: "pa.Array[Any] | None"
    """Which of `values` each row's image is, null where it has none; None: images were not asked for."""
    values: "pa.Array[Any] | None"
    """Images, as bytes."""
    new_bytes: int = 0
    """Bytes of images that the batches before it did not have."""


class ImageTable:
    """A Parquet file of the Hugging Face image layout, open to be read.

    Args:
        file: A path, or a stream that can seek.

    Raises:
        Unreadable: it is not Parquet, is encrypted, or its figures contradict each other.
    """

    def __init__(self, file: Path | BinaryIO) -> None:
        self._opened = file
        with _blamed("footer"):
            self._plain = pq.ParquetFile(file, **_OPTIONS)
            metadata = self._plain.metadata
            self.schema: pa.Schema = self._plain.schema_arrow
            self.columns = ", ".join(f"{field.name}: {field.type}" for field in self.schema)[:400]
            """For people."""
            self.image = _column_of(self.schema, IMAGES, "Image")
            """Column of the images; none: there is none."""
            self.label = _column_of(self.schema, LABELS, "ClassLabel")
            """Column of the labels; none: there is none."""
            self._bytes, self._path = f"{self.image}.bytes", f"{self.image}.path"
            self.rows, self._groups = int(metadata.num_rows), int(metadata.num_row_groups)
        if self._groups > MAX_GROUPS:
            raise Unreadable(f"expected at most {MAX_GROUPS} row groups, got {self._groups}; write larger ones")
        with _blamed("footer"):
            self._counts = [int(metadata.row_group(group).num_rows) for group in range(self._groups)]
        if self.rows < 0 or sum(self._counts) != self.rows or min(self._counts, default=0) < 0:
            raise Unreadable(f"expected row groups of {self.rows} rows together, got {sum(self._counts)}")

    @property
    def group_rows(self) -> Sequence[int]:
        """Rows of each row group."""
        return self._counts

    def batches(self, *, images: bool = True, labels: bool = True, start: int = 0) -> Iterator[Batch]:
        """All rows in order.

        Args:
            images: Read the images.
            labels: Read the labels.
            start: Skip the row groups that end before this row.

        Raises:
            Unreadable: a column of a row group cannot be read; the message names both.
        """
        first = 0
        for group, count in enumerate(self._counts):
            if first + count <= start:
                first += count
                continue
            small, size = self._sizing(group) if images else (True, SMALL_ROWS)
            tags = self._column(self._plain, group, self.label or "", size) if labels else None
            pictures = (
                self._column(self._distinct if small else self._plain, group, self._bytes, size) if images else None
            )
            last, known = first + count, 0
            while first < last:
                tag, picture = next(tags, None) if tags else None, next(pictures, None) if pictures else None
                length = self._length(group, last - first, [*([tag] if labels else []), *([picture] if images else [])])
                indices, values = _split(picture)
                have = 0 if values is None else int(values.nbytes)
                yield Batch(first, tag, indices, values, max(0, have - known))
                known = have if small else 0  # a small group's distinct values pile up
                first += length

    def images_from(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each row from `start` to `end`; a row without an image has no bytes.

        Raises:
            Unreadable: a column of a row group cannot be read.
        """
        for batch in self.batches(labels=False, start=start):
            assert batch.indices is not None
            assert batch.values is not None
            for row in range(max(start, batch.first), min(end, batch.first + len(batch.indices))):
                index = batch.indices[row - batch.first].as_py()
                yield row, (b"" if index is None else batch.values[index].as_py() or b"")
            if batch.first + len(batch.indices) >= end:
                return

    def names_of(self, rows: Sequence[int]) -> dict[int, str]:
        """Paths of some rows, as the file has them, at most 200 characters each; rows without one are left out.

        Args:
            rows: In rising order.
        """
        if self._path not in {
            self._plain.metadata.schema.column(n).path for n in range(len(self._plain.metadata.schema))
        }:
            return {}
        found, first, wanted = dict[int, str](), 0, list(rows)
        for group, count in enumerate(self._counts):
            here = [row for row in wanted if first <= row < first + count]
            at = first
            for column in self._column(self._plain, group, self._path, SMALL_ROWS) if here else ():
                for row in here:
                    if at <= row < at + len(column) and (value := column[row - at].as_py()):
                        found[row] = str(value)[:200].replace("\0", " ")
                at += len(column)
            first += count
        return found

    @cached_property
    def _distinct(self) -> pq.ParquetFile:
        """The same file, with images read as indices and distinct values."""
        with _blamed("footer"):
            return pq.ParquetFile(
                self._opened, metadata=self._plain.metadata, read_dictionary=[self._bytes], **_OPTIONS
            )

    def _length(self, group: int, most: int, columns: "list[pa.Array[Any] | None]") -> int:
        lengths = [0 if column is None else len(column) for column in columns]
        if len(set(lengths)) != 1 or not 0 < lengths[0] <= most:
            got = " and ".join(map(str, lengths))
            raise Unreadable(f"{self._where(group)}: expected {most} more rows in every column, got {got}")
        return lengths[0]

    def _column(self, file: pq.ParquetFile, group: int, name: str, size: int) -> "Iterator[pa.Array[Any]]":
        where = f"{self._where(group)}, column {name}"
        with _blamed(where):
            found = file.iter_batches(batch_size=size, row_groups=[group], columns=[name], use_threads=False)
        while True:
            with _blamed(where):
                batch = next(found, None)
                if batch is None:
                    return
                # By its name: a column `label.more` beside `label` is read as well.
                column = batch.column(batch.schema.names.index(name.partition(".")[0]))
                read = column.flatten()[0] if isinstance(column, pa.StructArray) else column
                read.validate()
            yield read

    def _sizing(self, group: int) -> tuple[bool, int]:
        """Whether a group's images are few bytes in all, and how many rows to read at once."""
        with _blamed(f"{self._where(group)}, column {self._bytes}"):
            row_group = self._plain.metadata.row_group(group)
            parts = (row_group.column(number) for number in range(row_group.num_columns))
            size = max(
                (int(part.total_uncompressed_size) for part in parts if part.path_in_schema == self._bytes), default=0
            )
        if size <= BATCH_BYTES:
            return True, SMALL_ROWS
        return False, max(1, min(LARGE_ROWS, BATCH_BYTES * max(1, row_group.num_rows) // size))

    def _where(self, group: int) -> str:
        return f"row group {group} of {self._groups}"


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """Features by column that the metadata of Hugging Face's libraries describe; empty without them."""
    value: object
    try:
        value = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}
    for step in ("info", "features"):
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _column_of(schema: pa.Schema, usual: Sequence[str], kind: str) -> str | None:
    """The first column with a usual name, or the only one that the metadata describe as of this kind."""
    features = features_of(schema).items()
    described = [name for name, one in features if isinstance(one, dict) and one.get("_type") == kind]
    known = [name for name in described if name in schema.names]
    named = next((name for name in usual if name in schema.names), None)
    return named or (known[0] if len(known) == 1 else None)


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, whether or not they are read as a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _split(images: "pa.Array[Any] | None") -> "tuple[pa.Array[Any] | None, pa.Array[Any] | None]":
    """Indices and values."""
    if images is None or isinstance(images, pa.DictionaryArray):
        return (None, None) if images is None else (images.indices, images.dictionary)
    return pa.array(np.arange(len(images)), mask=np.asarray(images.is_null())), images


@contextmanager
def _blamed(where: str) -> Iterator[None]:
    """Errors of Arrow are the file's; those of memory and of the disk are not."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Arrow's own have no number
        said = " ".join(str(error).split())[:400] or type(error).__name__
        raise Unreadable(f"{where}: expected Parquet that can be read, got {type(error).__name__}: {said}") from None
