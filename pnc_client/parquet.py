"""Write images as one Parquet file of the Hugging Face image layout."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_GROUP, _GROUP_BYTES = 1000, 32 * 2**20
"""Maximum images and bytes of a row group; only one group is in memory at a time."""


Row = tuple[str | None, bytes] | tuple[str | None, bytes, str]
"""Class name, bytes of the image file, and perhaps the file's name."""


def write_parquet(path: Path, rows: Iterable[Row], classes: Sequence[str] | None) -> int:
    """Write images to a Parquet file; equal rows give equal bytes.

    Args:
        path: The file to write.
        rows: Class name, image file and perhaps the file's name, of each image.
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

    def columns(group: Sequence[Row]) -> dict[str, "pa.Array[Any]"]:
        images = pa.array([{"bytes": row[1], "path": row[2] if len(row) == 3 else None} for row in group], image)
        if classes is None:
            return {"image": images}
        return {"image": images, "label": pa.array([_label(labels, row[0]) for row in group], pa.int64())}

    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.table(columns(group), schema=schema))
            count += len(group)
    return count


def _metadata(classes: Sequence[str] | None) -> str:
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if classes is not None:
        features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    return json.dumps({"info": {"features": features}})


def _label(labels: dict[str, int], name: str | None) -> int:
    if name is None or name not in labels:
        raise ValueError(f"expected one of the classes {list(labels)[:20]}, got {name!r}; add the class to `classes`")
    return labels[name]


def _groups(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    group: list[Row] = []
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
