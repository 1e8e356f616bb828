"""Make a dataset: one Parquet file of the Hugging Face image layout."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_GROUP = 1000


def write_parquet(path: Path, rows: Iterable[tuple[str, bytes]], classes: Sequence[str]) -> int:
    """Write labelled images; equal rows give equal bytes.

    Args:
        path: The file to write.
        rows: Class name and image file (PNG, JPEG or WebP bytes) of each image.
        classes: All class names; a label is a place in this list.

    Returns:
        How many images were written.

    Raises:
        ValueError: an image's class is not among `classes`.
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = {name: label for label, name in enumerate(classes)}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())]).with_metadata({"huggingface": _metadata(classes)})
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            columns = {
                "image": pa.array([{"bytes": content, "path": None} for _, content in group], image),
                "label": pa.array([_label(labels, name) for name, _ in group], pa.int64()),
            }
            writer.write_table(pa.table(columns, schema=schema))
            count += len(group)
    return count


def folder_rows(root: Path) -> tuple[list[str], Iterator[tuple[str, bytes]]]:
    """Class names and images of a directory that holds one directory a class.

    Raises:
        ValueError: there is no class directory with an image.
    """
    files = {d.name: _images(d) for d in sorted(root.iterdir()) if d.is_dir()}
    classes = [name for name, images in files.items() if images]
    if not classes:
        raise ValueError(f"{root}: expected one directory a class with PNG, JPEG or WebP files, got none")
    return classes, ((name, file.read_bytes()) for name in classes for file in files[name])


def _images(directory: Path) -> list[Path]:
    return sorted(f for f in directory.iterdir() if f.is_file() and f.suffix.lower() in IMAGE_SUFFIXES)


def _metadata(classes: Sequence[str]) -> str:
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
    }
    return json.dumps({"info": {"features": features}})


def _label(labels: dict[str, int], name: str) -> int:
    if name not in labels:
        raise ValueError(f"expected a class of {list(labels)[:20]}, got {name!r}; add it to `classes`")
    return labels[name]


def _groups(rows: Iterable[tuple[str, bytes]]) -> Iterator[Sequence[tuple[str, bytes]]]:
    remaining = iter(rows)
    while group := list(islice(remaining, _GROUP)):
        yield group
