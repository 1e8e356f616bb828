"""Labelled images from the user's disk: a directory a class, or a Parquet file of the project's form."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import torch

from app.client.parquet import folder_rows
from app.zoo.datasets import inspect
from app.zoo.images import decode_image
from pnc_core.data import ImageSet
from pnc_core.errors import DataError

ROWS = 1024
Row = tuple[str, str, bytes]
"""Class name, what to call the image in messages, and the file's bytes."""


def read_images(
    path: Path, classes: Sequence[str], size: tuple[int, int, int], step: Callable[[int], None] = lambda count: None
) -> ImageSet:
    """Read the images of some classes; those of others are skipped without decoding.

    Args:
        path: A directory with one directory a class, or a Parquet file of the Hugging Face image layout.
        classes: Which classes, in the order of the labels.
        size: Channels, height and width that every image is brought to.
        step: Called with the number of images after each one.

    Raises:
        DataError: there is no image of these classes, or a file is not an image; the message names it.
        ValueError: the directory holds no class directory with images.
        ZooError: the file is not such a Parquet file.
        OSError: something cannot be read.
    """
    labels = {name: label for label, name in enumerate(classes)}
    images, found = [], []
    for name, where, raw in _folder(path) if path.is_dir() else _parquet(path):
        if name in labels:
            images.append(torch.from_numpy(decode_image(raw, size, where)))
            found.append(labels[name])
            step(len(found))
    if not images:
        raise DataError(f"{path}: expected images of the classes {list(classes)[:20]}, got none; check the names")
    return ImageSet(torch.stack(images), torch.tensor(found, dtype=torch.int64), tuple(classes))


def _folder(root: Path) -> Iterator[Row]:
    for number, (name, raw) in enumerate(folder_rows(root)[1]):
        yield name, f"{root}: image {number} ({name})", raw


def _parquet(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        names = inspect(file).classes
        number = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=ROWS, columns=["image", "label"]):
            for row in batch.to_pylist():
                yield names[row["label"]], f"{path}: row {number}", (row["image"] or {}).get("bytes") or b""
                number += 1
