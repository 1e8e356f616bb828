"""Small sources of images of every kind, made anew at each call."""

import io
import json
import pickle  # noqa: TID251 - files of CIFAR are pickles
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pnc_client.sources import Images

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(shade: int = 0, kind: str = "PNG") -> bytes:
    """An image of one shade."""
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(file, kind)
    return file.getvalue()


def folder(root: Path, names: Sequence[str]) -> Path:
    """A folder of image files, and of others by their endings."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"words" if name.endswith((".txt", ".csv")) else png(number))
    return root


def archive(path: Path, names: Sequence[str]) -> Path:
    """The same as a zip or tar archive, by the ending of the path."""
    files = {name: png(number) for number, name in enumerate(names)}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            for name, content in files.items():
                made.writestr(name, content)
        return path
    return tar(path, files)


def tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar archive, compressed by its ending."""
    with tarfile.open(path, "w:" + {".gz": "gz", ".tgz": "gz", ".xz": "xz"}.get(path.suffix, "")) as made:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def table(path: Path, columns: Mapping[str, Any], features: Mapping[str, Any] | None = None) -> Path:
    """A Parquet file, with the metadata of Hugging Face's libraries."""
    made = pa.table(dict(columns))
    if features is not None:
        text = json.dumps({"info": {"features": features}}).encode()
        made = made.replace_schema_metadata({b"huggingface": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path)
    return path


def pictures(count: int) -> "pa.Array[Any]":
    """A column of images as Hugging Face's libraries write it."""
    return pa.array([{"bytes": png(number), "path": None} for number in range(count)], STRUCT)


def named(*names: Any, column: str = "label", image: str = "image") -> dict[str, Any]:
    """Features of images and of labels with names."""
    return {image: {"_type": "Image"}, column: {"names": [*names], "_type": "ClassLabel"}}


def idx(path: Path, values: "np.ndarray[Any, Any]") -> None:
    """A file of MNIST."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes((0, 0, 8, values.ndim)) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


def pickled(path: Path, value: Any) -> None:
    """A file of CIFAR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, 2))


def counts(images: Images) -> dict[str | None, int]:
    """Images by class, read to the end."""
    return dict(Counter(item.label for item in images))
