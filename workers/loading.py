"""From objects in the store to networks and images in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from app.zoo.images import decode_image
from app.zoo.models import spec_of
from app.zoo.store import verified_file
from app.zoo.tables import DatasetRow, VersionRow
from app.zoo.zoo import Zoo
from pnc_core.config import NetworkSpec
from pnc_core.data import ImageSet
from pnc_core.networks import load_network

ROWS = 1024


def load_version(zoo: Zoo, version: VersionRow) -> tuple[nn.Module, NetworkSpec]:
    """A registered network in eval mode, and its spec.

    Raises:
        ZooError: the object is gone, or its bytes have changed.
        PncError: the weights are damaged or do not fit the spec.
    """
    spec = spec_of(version)
    with verified_file(zoo.store, version.key, version.digest) as path:
        return load_network(spec, path), spec


def load_images(
    zoo: Zoo,
    dataset: DatasetRow,
    classes: Sequence[str],
    size: tuple[int, int, int],
    *,
    labelled: bool = True,
    most: int | None = None,
) -> ImageSet:
    """The images of some classes, decoded to one size.

    Args:
        zoo: Where the file lies.
        dataset: Parquet in the Hugging Face image layout.
        classes: Which classes; rows of others are skipped without decoding.
        size: Channels, height and width that every image is brought to.
        labelled: Without, every row is taken and its label is not looked at.
        most: So many of them, always the same ones; None: all.

    Raises:
        ZooError: the object is gone, or its bytes have changed.
        DataError: a row holds no image; the message names it.
    """
    wanted = {dataset.classes.index(name): label for label, name in enumerate(classes) if name in dataset.classes}
    images, labels = [], []
    with verified_file(zoo.store, dataset.key, dataset.digest) as path:
        chosen = None if most is None else _sample(path, list(wanted) if labelled else None, most)
        for number, label, raw in _rows(path, labelled):
            if (label in wanted or not labelled) and (chosen is None or number in chosen):
                images.append(torch.from_numpy(decode_image(raw, size, f"row {number}")))
                labels.append(wanted[label] if labelled else 0)
    return ImageSet(torch.stack(images), torch.tensor(labels, dtype=torch.int64), tuple(classes))


def _sample(path: Path, labels: Sequence[int] | None, most: int) -> set[int]:
    """Numbers of at most `most` rows, of some labels or of any, drawn with a seed of its own."""
    if labels is None:
        rows = np.arange(pq.read_metadata(path).num_rows)
    else:
        rows = np.flatnonzero(np.isin(pq.read_table(path, columns=["label"])["label"].to_numpy(), labels))
    return {int(row) for row in np.random.default_rng(0).permutation(rows)[:most]}


def _rows(path: Path, labelled: bool) -> Iterator[tuple[int, int, bytes]]:
    """Number, label (-1 where labels are not read, and perhaps not there) and bytes of every image."""
    file = pq.ParquetFile(path)
    number = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=["image", "label"] if labelled else ["image"]):
        for row in batch.to_pylist():
            image = row["image"] or {}
            yield number, row.get("label", -1), image.get("bytes") or b""
            number += 1
