"""Write images as one Parquet file of the Hugging Face image layout."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_GROUP, _GROUP_BYTES = 1000, 32 * 2**20
"""Maximum images and bytes of a row group; only one group is in memory at a time."""


def write_parquet(path: Path, rows: Iterable[tuple[str, bytes]], classes: Sequence[str] | None) -> int:
    """Write images to a Parquet file; equal rows give equal bytes.

    Args:
        path: The file to write.
        rows: Class name and image file (PNG, JPEG or WebP bytes) of each image.
        classes: All class names; a label is an index into this list. None: no labels are written.

    Returns:
        The number of images.

    Raises:
        ValueError: an image's class is not among `classes`.
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = {name: label for label, name in enumerate(classes or ())}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("image", image), *([("label", pa.int64())] if classes is not None else [])]
    schema = pa.schema(fields).with_metadata({"huggingface": _metadata(classes)})

    def columns(group: Sequence[tuple[str, bytes]]) -> dict[str, "pa.Array[Any]"]:
        images = pa.array([{"bytes": content, "path": None} for _, content in group], image)
        if classes is None:
            return {"image": images}
        return {"image": images, "label": pa.array([_label(labels, name) for name, _ in group], pa.int64())}

    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.table(columns(group), schema=schema))
            count += len(group)
    return count


def folder_rows(root: Path) -> tuple[list[str] | None, Iterator[tuple[str, bytes]]]:
    """Class names and images of a directory with one directory per class, or of a directory of unlabelled images.

    Returns:
        Class names, and class name and bytes of each image. If no directory inside `root` holds images, the images
        in `root` itself are read without labels: the class names are None, and each image's class name is empty.

    Raises:
        ValueError: the directory holds no image.
    """
    files = {d.name: _images(d) for d in sorted(root.iterdir()) if d.is_dir() and not _is_system_file(d)}
    classes = [name for name, images in files.items() if images]
    if classes:
        return classes, ((name, file.read_bytes()) for name in classes for file in files[name])
    unlabelled = _images(root)
    if not unlabelled:
        raise ValueError(
            f"{root}: expected one directory per class with PNG, JPEG or WebP files, or such files without labels, "
            "got none"
        )
    return None, (("", file.read_bytes()) for file in unlabelled)


def _images(directory: Path) -> list[Path]:
    files = (f for f in directory.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not _is_system_file(f))
    return sorted(f for f in files if f.is_file())


def _is_system_file(path: Path) -> bool:
    """Whether an operating system created the file, e.g. `._cat.png` or `__MACOSX` in an archive from macOS."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def _metadata(classes: Sequence[str] | None) -> str:
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if classes is not None:
        features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    return json.dumps({"info": {"features": features}})


def _label(labels: dict[str, int], name: str) -> int:
    if name not in labels:
        raise ValueError(f"expected one of the classes {list(labels)[:20]}, got {name!r}; add the class to `classes`")
    return labels[name]


def _groups(rows: Iterable[tuple[str, bytes]]) -> Iterator[Sequence[tuple[str, bytes]]]:
    group: list[tuple[str, bytes]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row[1])
        if len(group) == _GROUP or size >= _GROUP_BYTES:
            yield group
            group.clear()  # the caller still refers to this list; clearing it frees the images
            size = 0
    if group:
        yield group
