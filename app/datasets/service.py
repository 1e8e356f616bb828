"""Datasets: images in one Parquet file of the Hugging Face image layout.

One column holds images (a struct with `bytes`: `image`, `img`, or the column that the metadata call an image), another
labels (whole numbers: `label`, `labels`, `fine_label`, or the only ClassLabel). Class names come from the schema's
metadata or from the request. Without a column of labels the images have no labels, and the dataset no classes. Every
row group is read once, so that a damaged file is refused here and not in a job. A worker looks at the pixels
afterwards, see `app.datasets.inspections`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.parquet import ImageTable, Unreadable, features_of, value_type
from app.datasets.tables import DatasetRow
from app.db import archive
from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.errors import Invalid
from app.models import checks
from app.names import check_name
from app.store import uploads
from pnc_core.spelling import MAX_LENGTH, is_class_name, normal_name

MAX_CLASSES = 100_000
MAX_ROWS = 50_000_000
"""A few kilobytes can say that they are billions of images, and each is looked at."""
_MAKER = "`pnc datasets push` makes such a file of other columns, folders and archives"


@dataclass(frozen=True)
class Contents:
    """What a Parquet file holds."""

    rows: int
    classes: tuple[str, ...]
    counts: dict[str, int]


def inspect(file: BinaryIO, classes: Sequence[str] | None = None, most_bytes: int | None = None) -> Contents:
    """Check columns and labels and count images a class; call it outside any transaction.

    Args:
        file: The Parquet file.
        classes: Class names in the order of the labels, instead of those in the file.
        most_bytes: So many bytes of images at most, unpacked; None: any number.

    Raises:
        Invalid: not Parquet, other columns, no or odd class names, too many images, or labels without a name.
    """
    try:
        table = ImageTable(file)
        labelled = _check_columns(table)
        if table.rows > MAX_ROWS:
            got = f"expected at most {MAX_ROWS} images, got {table.rows}; split the file"
            raise Invalid.at("/upload", "too_many_images", got)
        if not table.rows:
            raise Invalid.at("/upload", "no_images", "expected at least one image, got a file without rows; add images")
        if not labelled:
            _check_unlabelled(classes)
        names = _class_names(table, classes) if labelled else ()
        return Contents(table.rows, names, _count(table, names, most_bytes))
    except (Unreadable, UnicodeDecodeError) as error:
        raise Invalid.at(
            "/upload", "invalid_parquet", f"expected a Parquet file, got one that fails: {error}; {_MAKER}"
        ) from None


def register(session: Session, *, name: str, upload_id: str, contents: Contents) -> DatasetRow:
    """Register a dataset whose file was inspected, and ask for checks of versions with its classes.

    Raises:
        Invalid: the name is not one, or the upload is not complete.
    """
    check_name(name)
    upload, key = uploads.completed(session, upload_id, keep=True)
    row = DatasetRow(
        id=new_id("ds"),
        name=name,
        digest=upload.digest,
        bytes=upload.bytes,
        key=key,
        rows=contents.rows,
        classes=list(contents.classes),
        counts=contents.counts,
    )
    session.add(row)
    session.flush()
    checks.ask_for_dataset(session, row)
    return row


def list_datasets(session: Session, window: Window, *, archived: bool = False) -> Page[DatasetRow]:
    """Datasets, newest first; archived ones only when asked for."""
    query = select(DatasetRow).where(DatasetRow.purged_at.is_(None))
    if not archived:
        query = query.where(DatasetRow.archived_at.is_(None))
    return page(session, query, DatasetRow.id, str, window)


def get(session: Session, dataset_id: str, *, purged: bool = False) -> DatasetRow:
    """One dataset.

    Args:
        session: A session.
        dataset_id: Its id.
        purged: Also one that was purged.

    Raises:
        NotFound: there is none with this id.
    """
    missing = f"expected a dataset, got none with id {dataset_id!r:.80}; see GET /v1/datasets"
    return archive.found(session.get(DatasetRow, dataset_id), missing, purged=purged)


def set_archived(session: Session, dataset_id: str, archived: bool) -> DatasetRow:
    """Archive or restore a dataset.

    Raises:
        NotFound: there is none with this id.
    """
    row = get(session, dataset_id)
    archive.set_archived(session, row, archived)
    return row


def _check_unlabelled(classes: Sequence[str] | None) -> None:
    if classes is not None:
        detail = f"expected no `classes` for images without a column label, got {len(classes)}; leave them out"
        raise Invalid.at("/classes", "no_labels", detail)


def _check_columns(table: ImageTable) -> bool:
    """Whether there are labels."""
    schema = table.schema
    expected = (
        "expected one column image: struct<bytes: binary, path: string> and one label: int64, or none without labels"
    )
    problem = Invalid.at("/upload", "invalid_columns", f"{expected}, got {table.columns}; {_MAKER}")
    if table.image is None or schema.names.count(table.image) != 1:
        raise problem
    if table.label is not None and schema.names.count(table.label) != 1:
        raise problem
    image = schema.field(table.image).type
    if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise problem
    if table.label is not None and not pa.types.is_integer(schema.field(table.label).type):
        raise problem
    kind = value_type(image.field("bytes").type)
    if not any(fits(kind) for fits in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)):
        raise problem
    return table.label is not None


def _class_names(table: ImageTable, given: Sequence[str] | None) -> tuple[str, ...]:
    names = list(given) if given is not None else _names_in_schema(table)
    if not names:
        detail = "expected class names, got none in the file's `huggingface` metadata; send `classes` with the request"
        raise Invalid.at("/classes", "no_class_names", detail)
    _check_names(normal := [normal_name(name) if isinstance(name, str) else name for name in names])
    return tuple(normal)


def _check_names(names: Sequence[object]) -> None:
    """The same rules as a network's own classes follow; numbers and the like come from the file."""
    odd = [name for name in names if not is_class_name(name)]
    if odd:
        detail = f"expected printable names of 1 to {MAX_LENGTH} characters, got {odd[0]!r:.80}"
    elif len(names) > MAX_CLASSES or len(set(names)) != len(names):
        got = f"{len(names)}, {len(set(names))} of them distinct"
        detail = f"expected at most {MAX_CLASSES} class names without repetition, got {got}"
    else:
        return
    raise Invalid.at("/classes", "invalid_class_names", f"{detail}; send other `classes` with the request")


def _names_in_schema(table: ImageTable) -> list[Any]:
    """`info.features.LABEL.names` of the Hugging Face metadata; empty when it is not there."""
    feature = features_of(table.schema).get(table.label or "")
    value = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(value, dict) and all(str(number) in value for number in range(len(value))):
        return [value[str(number)] for number in range(len(value))]  # as in the README of a dataset on the Hub
    return value if isinstance(value, list) else []


def _count(table: ImageTable, names: tuple[str, ...], most_bytes: int | None) -> dict[str, int]:
    """Images of each class; labels are read first, which is cheap."""
    totals = [0] * len(names)
    for batch in table.batches(images=False) if names else ():
        for label, count in _tally(batch.labels):
            if label is None or not 0 <= label < len(names):
                detail = f"expected labels from 0 to {len(names) - 1}, got {label} in {count} rows; name every class"
                raise Invalid.at("/upload", "invalid_labels", detail)
            totals[label] += count
    unpacked = 0
    for batch in table.batches(labels=False):
        unpacked += batch.new_bytes
        if most_bytes is not None and unpacked > most_bytes:
            detail = f"expected at most {most_bytes} bytes of images, unpacked, got more; split the file"
            raise Invalid.at("/upload", "too_many_bytes", f"{detail}, or raise PNC_MAX_DATASET_BYTES")
    return dict(zip(names, totals, strict=True))


def _tally(labels: "pa.Array[Any] | None") -> Iterator[tuple[int | None, int]]:
    """Each label and how often it occurs, counted without an object a row."""
    assert labels is not None  # the batch was read with its labels
    tally = pc.value_counts(labels)
    yield from zip(tally.field("values").to_pylist(), tally.field("counts").to_pylist(), strict=True)
