"""Images of Parquet files: one file, or all files of a folder with their splits."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnc_client.sources.columns import Columns, find_columns
from pnc_client.sources.found import NO_LABEL, Images, Item, SourceError, choose, classes_of
from pnc_client.sources.layout import SPLITS, taken_splits
from pnc_core.spelling import normal_name

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_ROWS = 32
"""Rows that are read at once."""
_WORD = re.compile(r"[a-z]+")


def parquet_images(
    files: Sequence[Path], split: str | None, image: str | None = None, label: str | None = None
) -> Images:
    """Images of Parquet files with equal columns.

    Args:
        files: The files, at least one.
        split: The wanted split, `all`, or none if there is only one.
        image: Column of the images; none: it is recognised.
        label: Column of the labels, or `none`; none: it is recognised.

    Raises:
        SourceError: a file is no Parquet, no column fits, or no split is chosen.
    """
    splits = {file: split_of(file) for file in files}
    names = sorted({name for name in splits.values() if name})
    wanted = choose("splits", names, split, "--split") if len(files) > 1 or split not in (None, "all") else None
    chosen = [file for file in files if wanted is None or splits[file] == wanted]
    left = sum(_opened(file).metadata.num_rows for file in files if file not in chosen)
    columns = find_columns(_opened(chosen[0]).schema_arrow, image, label)
    for file in chosen[1:]:
        wanted_columns = [columns.image, *([columns.label] if columns.label else [])]
        missing = set(wanted_columns) - {*_opened(file).schema_arrow.names}
        if missing:
            raise SourceError(f"{file}: expected the columns of {chosen[0].name}, got none of {', '.join(missing)}")
    found = _names(chosen, columns)
    images = Images(found[0], [], notes=[columns.note, *([taken_splits(wanted, left)] if names else []), *found[1]])
    images.items = _items(images, chosen, columns)
    return images


def split_of(file: Path) -> str | None:
    """The split that a file's name or its folder says, as in `train-00000-of-00002.parquet` and `test/0000.parquet`."""
    word = _WORD.match(file.name.lower())
    return SPLITS.get(word[0] if word else "") or SPLITS.get(file.parent.name.lower())


def _opened(file: Path) -> "pq.ParquetFile":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise SourceError(f"{file}: expected a Parquet file, got one that cannot be read: {said}") from None


def _names(files: Sequence[Path], columns: Columns) -> tuple[list[str] | None, list[str]]:
    """Names of all classes, and notes; None: no row has a label."""
    if columns.label is None:
        return None, []
    if columns.names is not None and _is_number_column(files[0], columns.label):
        names = [normal_name(name) for name in columns.names]
        return (names, []) if next(_labels(files, columns), None) is not None else (None, ["no row has a label"])
    found = set(_labels(files, columns))
    if not found:
        return None, ["no row has a label"]
    numbers = all(name.isdecimal() for name in found)
    note = ["the labels are numbers without names, which are taken as names; `--classes` gives others"]
    return classes_of(found), note if numbers else []


def _labels(files: Sequence[Path], columns: Columns) -> Iterator[str]:
    for file in files:
        for batch in _opened(file).iter_batches(columns=[columns.label or ""], batch_size=65_536):
            distinct = batch.column(0).unique().to_pylist()
            yield from (name for value in distinct if (name := _label(value, columns)) is not None)


def _is_number_column(file: Path, column: str) -> bool:
    import pyarrow as pa

    return not pa.types.is_string(_opened(file).schema_arrow.field(column).type)


def _items(images: Images, files: Sequence[Path], columns: Columns) -> Iterator[Item]:
    for file in files:
        row = 0
        wanted = [columns.image, *([columns.label] if columns.label else [])]
        for batch in _opened(file).iter_batches(columns=wanted, batch_size=_ROWS, use_threads=False):
            pictures = batch.column(batch.schema.names.index(columns.image))
            labels = batch.column(batch.schema.names.index(columns.label)) if columns.label else None
            for place in range(len(pictures)):
                name, row = f"{file.name} row {row}", row + 1
                label = None if labels is None else _label(labels[place].as_py(), columns)
                raw, path = _content(pictures[place].as_py(), file.parent)
                if images.classes is not None and label is None:
                    images.skip(name, NO_LABEL)
                elif raw is None:
                    images.skip(name, f"it has the path {path!r:.80} and no bytes" if path else "it has no image")
                else:
                    yield Item(path or name, label if images.classes else None, raw)


def _label(value: Any, columns: Columns) -> str | None:
    """The name of a label; none: the row has none, which is also written as -1."""
    if value is None or value == -1 or value == "":
        return None
    if isinstance(value, str):
        return normal_name(value)
    if isinstance(value, float) and value != int(value):
        raise SourceError(f"expected whole numbers in column {columns.label!r}, got {value}; use another column")
    number = int(value)
    names = columns.names
    if names is None:
        return str(number)
    if not 0 <= number < len(names):
        raise SourceError(
            f"expected labels from 0 to {len(names) - 1} in column {columns.label!r}, got {number}; name every class "
            "with `--classes`"
        )
    return normal_name(names[number])


def _content(value: Any, folder: Path) -> tuple[bytes | None, str | None]:
    """Bytes and path of an image; a path below the file's own folder is read."""
    if not isinstance(value, dict):
        return value, None
    raw, path = value.get("bytes"), value.get("path")
    path = path.decode(errors="replace") if isinstance(path, bytes) else path
    if raw is None and path:
        file = (folder / path).resolve()
        if file.is_relative_to(folder.resolve()) and file.is_file():
            raw = file.read_bytes()
    return raw, path
