"""Loads networks and images from objects in the store."""

import math
import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import nn

from app.datasets.images import decode_image
from app.datasets.parquet import Batch, ImageTable, Unreadable
from app.datasets.tables import DatasetRow
from app.models.service import spec_of
from app.models.tables import VersionRow
from app.store.objects import verified_file
from app.zoo import Zoo
from pnc_core.config import NetworkSpec
from pnc_core.errors import DataError
from pnc_core.graph.architectures import load_network
from pnc_core.images import ImageSet
from pnc_core.preprocessing import Geometry

Rows = NDArray[np.int64]


def load_version(zoo: Zoo, version: VersionRow) -> tuple[nn.Module, NetworkSpec]:
    """Load a registered network in eval mode, with its spec.

    Raises:
        ZooError: the object is missing, or its bytes have changed.
        PncError: the weights are damaged or do not fit the spec.
    """
    spec = spec_of(version)
    with verified_file(zoo.store, version.key, version.digest) as path:
        return load_network(spec, path), spec


def load_images(
    zoo: Zoo,
    dataset: DatasetRow,
    classes: Sequence[str],
    geometries: Sequence[Geometry],
    *,
    labelled: bool = True,
    max_images: int | None = None,
) -> ImageSet:
    """Load the images of some classes. Each file is decoded once and fitted for each network.

    Args:
        zoo: The open zoo.
        dataset: Parquet in the Hugging Face image layout.
        classes: Classes to load; rows of other classes are skipped without decoding.
        geometries: Geometries of the networks that see the images, see `geometries_of`. `images` of the result has
            the first one, `fitted` the others.
        labelled: False: all rows are loaded and their labels ignored.
        max_images: Limit of images, drawn with a fixed seed; None: no limit.

    Raises:
        ZooError: the object is missing, or its bytes have changed.
        DataError: the file cannot be read, holds too many images, or has a row without an image; the message names
            the row.
        MemoryError: the images cannot fit into this machine.
    """
    wanted = {dataset.classes.index(name): label for label, name in enumerate(classes) if name in dataset.classes}
    with verified_file(zoo.store, dataset.key, dataset.digest) as path:
        try:
            table = ImageTable(path)
            rows, labels = _select_rows(table, wanted if labelled else None, max_images)
            _check_size(dataset, len(rows), geometries, zoo.settings.max_pixel_bytes)
            plain, *others = (torch.from_numpy(pixels) for pixels in _decode_rows(table, rows, geometries))
        except Unreadable as error:
            raise DataError(f"dataset {dataset.id} ({dataset.name}): {error}; register the images again") from None
    fitted = dict(zip(geometries[1:], others, strict=True))
    return ImageSet(plain, torch.from_numpy(labels), tuple(classes), fitted)


def _select_rows(table: ImageTable, wanted: dict[int, int] | None, max_images: int | None) -> tuple[Rows, Rows]:
    """Numbers of the rows with the wanted labels in rising order, and their new labels.

    Args:
        table: The open file.
        wanted: New label by label in the file; None selects all rows.
        max_images: Limit of rows, drawn with a fixed seed.
    """
    if wanted is None:
        rows = np.arange(table.rows)
        labels = np.zeros_like(rows)
    else:
        found = [_with_labels(batch, [*wanted]) for batch in table.batches(images=False)]
        rows = np.concatenate([np.empty(0, np.int64), *(numbers for numbers, _ in found)])
        old = np.concatenate([np.empty(0, np.int64), *(labels for _, labels in found)])
        labels = np.array([wanted[label] for label in old.tolist()], np.int64)
    if max_images is None:
        return rows, labels
    places = np.sort(np.random.default_rng(0).permutation(len(rows))[:max_images])
    return rows[places], labels[places]


def _with_labels(batch: Batch, wanted: list[int]) -> tuple[Rows, Rows]:
    labels = _integers(batch.labels)
    places = np.flatnonzero(np.isin(labels, wanted))
    return batch.first + places, labels[places]


def _integers(column: "pa.Array[Any] | None") -> Rows:
    """The column as int64; missing values are -1."""
    assert column is not None  # the batch was read with this column
    cast: Any = pc.cast(column, pa.int64(), safe=False)
    return np.asarray(pc.fill_null(cast, -1))


def _check_size(dataset: DatasetRow, count: int, geometries: Sequence[Geometry], max_bytes: int) -> None:
    needed = count * sum(math.prod(geometry.size) for geometry in geometries)
    sizes = " and ".join(" x ".join(map(str, geometry.size)) for geometry in geometries)
    got = f"{count} images of {sizes}, which are {needed} bytes"
    if needed > max_bytes:
        raise DataError(
            f"dataset {dataset.id} ({dataset.name}): expected decoded images of at most {max_bytes} bytes, got {got}; "
            "register fewer images, or raise PNC_MAX_PIXEL_BYTES"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise MemoryError(f"dataset {dataset.id}: expected images that fit into {memory} bytes of memory, got {got}")


def _decode_rows(table: ImageTable, rows: Rows, geometries: Sequence[Geometry]) -> list[NDArray[np.uint8]]:
    """Pixels of some rows by geometry: uint8 (rows, *geometry.size). Rows with equal files are decoded once."""
    views = [np.empty((len(rows), *geometry.size), np.uint8) for geometry in geometries]
    known: dict[bytes, int] = {}
    done = 0
    for batch in table.batches(labels=False):
        if done == len(rows):
            break
        indices = _integers(batch.indices)
        here: dict[int, int] = {}
        while done < len(rows) and rows[done] < batch.first + len(indices):
            index = int(indices[rows[done] - batch.first])
            place = here.get(index)
            if place is None:
                raw = batch.values[index].as_py() if batch.values is not None and index >= 0 else b""
                place = known.setdefault(blake2b(raw or b"", digest_size=16).digest(), done)
                here[index] = place
                if place == done:
                    found = decode_image(raw or b"", geometries, f"row {rows[done]}")
                    for pixels, one in zip(views, found, strict=True):
                        pixels[done] = one
            if place != done:
                for pixels in views:
                    pixels[done] = pixels[place]
            done += 1
    return views
