"""Read images from a directory with one directory per class, or from a Parquet file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from app.datasets.images import decode_image
from app.datasets.parquet import ImageTable, Unreadable
from app.datasets.service import inspect
from app.errors import ZooError
from pnc_client.parquet import folder_rows
from pnc_core.errors import DataError
from pnc_core.images import ImageSet
from pnc_core.preprocessing import Geometry

Row = tuple[str | None, str, bytes]
"""Class name (None: no label), name of the image in messages, and bytes of the image file."""


def read_images(
    path: Path,
    classes: Sequence[str],
    geometries: Sequence[Geometry],
    step: Callable[[int], None] = lambda count: None,
    *,
    labelled: bool = True,
) -> ImageSet:
    """Read the images of some classes; images of other classes are skipped without decoding.

    Args:
        path: A directory with one directory per class, or a Parquet file of the Hugging Face image layout.
        classes: Names of the classes, in the order of the labels.
        geometries: Geometries of the networks that see the images, see `geometries_of`. `images` of the result has
            the first one, `fitted` the others.
        step: Called with the number of images after each image.
        labelled: False: every image is read, and labels are ignored and may be missing.

    Raises:
        DataError: labels are missing, no image has one of these classes, or a file is not an image or not a Parquet
            file of that layout; the message names the file.
        ValueError: the directory holds no images.
        OSError: a file cannot be read.
    """
    labels = {name: label for label, name in enumerate(classes)}
    images: list[list[Tensor]] = []
    found: list[int] = []
    for name, where, raw in _folder(path) if path.is_dir() else _parquet(path):
        if labelled and name is None:
            raise DataError(
                f"{path}: expected images with labels, got images without; put the images into one directory per "
                "class, or clone without labels (`pnc clone --set labels=false`)"
            )
        if name in labels or not labelled:
            images.append([torch.from_numpy(view) for view in decode_image(raw, geometries, where)])
            found.append(labels[name] if labelled and name else 0)
            step(len(found))
    if not images:
        raise DataError(f"{path}: expected images of the classes {list(classes)[:20]}, got none; check the class names")
    plain, *others = (torch.stack(view) for view in zip(*images, strict=True))
    fitted = dict(zip(geometries[1:], others, strict=True))
    return ImageSet(plain, torch.tensor(found, dtype=torch.int64), tuple(classes), fitted)


def _folder(root: Path) -> Iterator[Row]:
    classes, rows = folder_rows(root)
    for number, (name, raw) in enumerate(rows):
        yield (name, f"{root}: image {number} ({name})", raw) if classes else (None, f"{root}: image {number}", raw)


def _parquet(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        try:
            names = inspect(file).classes
            for batch in ImageTable(file).batches(labels=bool(names)):
                labels = batch.labels.to_pylist() if batch.labels is not None else None
                for number, index in enumerate(batch.indices.to_pylist() if batch.indices is not None else ()):
                    raw = batch.values[index].as_py() if batch.values is not None and index is not None else None
                    label = labels[number] if labels else None
                    name = names[label] if label is not None else None
                    yield name, f"{path}: row {batch.first + number}", raw or b""
        except (ZooError, Unreadable) as error:
            raise DataError(f"{path}: {error}") from None
