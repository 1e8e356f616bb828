"""Loads networks and images from objects in the store."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import nn

from app.datasets import inspections
from app.datasets.images import decode_image
from app.datasets.parquet import Batch, ImageTable, Unreadable
from app.datasets.tables import DatasetRow
from app.jobs import rules
from app.models.service import spec_of
from app.models.tables import VersionRow
from app.process.resources import memory, processors
from app.store.objects import verified_file
from app.zoo import Zoo
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.config import CloneConfig, NetworkSpec, geometries_of
from pnc_core.errors import DataError
from pnc_core.graph.architectures import load_network
from pnc_core.images import ImageSet
from pnc_core.preprocessing import Geometry

Rows = NDArray[np.int64]
Network = tuple[nn.Module, NetworkSpec]


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
    note: Callable[[str, int], object] = lambda text, count: None,
) -> ImageSet:
    """Load the images of some classes. Each file is decoded once and fitted for each network.

    An image that cannot be decoded costs only its row. Rows that the inspection of the dataset found are not tried.

    Args:
        zoo: The open zoo.
        dataset: Parquet in the Hugging Face image layout.
        classes: Classes to load; rows of other classes are skipped without decoding.
        geometries: Geometries of the networks that see the images, see `geometries_of`. `images` of the result has
            the first one, `fitted` the others.
        labelled: False: all rows are loaded and their labels ignored.
        max_images: Limit of images, drawn with a fixed seed; None: no limit.
        note: Told in words how many images are left out and why the first one is, and their number.

    Raises:
        ZooError: the object is missing, or its bytes have changed.
        DataError: the file cannot be read, holds too many images, or none of them can be decoded; the message names
            the first row.
        MemoryError: the images cannot fit into this machine.
    """
    wanted = {dataset.classes.index(name): label for label, name in enumerate(classes) if name in dataset.classes}
    with verified_file(zoo.store, dataset.key, dataset.digest) as path:
        try:
            table = ImageTable(path)
            known = _known_faults(zoo, dataset)
            rows, labels, left_out = _select_rows(table, wanted if labelled else None, max_images, known)
            _check_size(dataset, len(rows), geometries, zoo.settings.max_pixel_bytes)
            pixels, faults = _decode_rows(table, rows, geometries)
        except Unreadable as error:
            raise DataError(f"dataset {dataset.id} ({dataset.name}): {error}; register the images again") from None
    faults = {row: known[row] for row in left_out} | faults
    labels = labels[~np.isin(rows, list(faults))]
    if faults:
        row, reason = min(faults.items())
        count = f"{len(faults)} of {len(rows) + len(left_out)} images"
        text = f"{count} cannot be decoded and are left out; row {row}: {reason}"
        if not len(labels):
            raise DataError(f"dataset {dataset.id} ({dataset.name}): expected images, got none: {text}")
        note(text, len(faults))
    plain, *others = (torch.from_numpy(view) for view in pixels)
    fitted = dict(zip(geometries[1:], others, strict=True))
    return ImageSet(plain, torch.from_numpy(labels), tuple(classes), fitted)


def load_inputs(
    zoo: Zoo,
    target: VersionRow,
    source: VersionRow,
    dataset: DatasetRow,
    config: CloneConfig,
    *,
    max_images: int | None = None,
    admit: Callable[[Network, Network], object] = lambda target, source: None,
    note: Callable[[str, int], object] = lambda text, count: None,
) -> tuple[Network, Network, ImageSet, CloneConfig]:
    """Both networks on the worker's device, the images of their classes, and the parameters of a job.

    Args:
        zoo: The open zoo.
        target: Version of the target.
        source: Version of the source.
        dataset: Images of both.
        config: Parameters, with the source's own names of classes.
        max_images: Limit of images; None: no limit.
        admit: Called with both networks before the images are loaded.
        note: Told how many images are left out.

    Raises:
        ZooError: the source's owner does not allow a class to be cloned, or an object is missing.
        PncError: a network or the images cannot be loaded.
    """
    rules.check_clonable(source, config)
    one, other = (_on_device(load_version(zoo, version), zoo) for version in (target, source))
    admit(one, other)
    classes, geometries = (*one[1].classes, *config.classes), geometries_of([one[1], other[1]])
    images = load_images(zoo, dataset, classes, geometries, labelled=config.labels, max_images=max_images, note=note)
    work = min(config.batch_size, len(images)) * max(multiply_accumulates(*one), multiply_accumulates(*other))
    torch.set_num_threads(processors.threads_for(work, zoo.settings.threads))
    return one, other, images, config


def _on_device(network: Network, zoo: Zoo) -> Network:
    device = "cuda" if zoo.settings.worker_device == "cuda" else "cpu"
    return network[0].to(device), network[1]


def _known_faults(zoo: Zoo, dataset: DatasetRow) -> dict[int, str]:
    """Reasons by row of the images that the dataset's inspection could not decode."""
    if not dataset.unreadable:
        return {}
    with zoo.database.read() as session:
        return {row: reason for row, _, reason in inspections.faults_of(session.get_one(DatasetRow, dataset.id))}


def _select_rows(
    table: ImageTable, wanted: dict[int, int] | None, max_images: int | None, faults: Collection[int]
) -> tuple[Rows, Rows, list[int]]:
    """Numbers of the rows with the wanted labels in rising order, their new labels, and the rows that are left out.

    Args:
        table: The open file.
        wanted: New label by label in the file; None selects all rows.
        max_images: Limit of rows, drawn with a fixed seed.
        faults: Rows that cannot be decoded.
    """
    if wanted is None:
        rows = np.arange(table.rows)
        labels = np.zeros_like(rows)
    else:
        found = [_with_labels(batch, [*wanted]) for batch in table.batches(images=False)]
        rows = np.concatenate([np.empty(0, np.int64), *(numbers for numbers, _ in found)])
        old = np.concatenate([np.empty(0, np.int64), *(labels for _, labels in found)])
        labels = np.array([wanted[label] for label in old.tolist()], np.int64)
    bad = np.isin(rows, list(faults))
    left_out = [int(row) for row in rows[bad]]
    rows, labels = rows[~bad], labels[~bad]
    if max_images is None:
        return rows, labels, left_out
    places = np.sort(np.random.default_rng(0).permutation(len(rows))[:max_images])
    return rows[places], labels[places], left_out


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
    limit = memory.room().limit
    if needed > limit:
        raise MemoryError(f"dataset {dataset.id}: expected images that fit into {limit} bytes of memory, got {got}")


def _decode_rows(
    table: ImageTable, rows: Rows, geometries: Sequence[Geometry]
) -> tuple[list[NDArray[np.uint8]], dict[int, str]]:
    """Pixels of the rows that can be decoded by geometry, uint8 (rows, *geometry.size), and reasons of the others.

    Rows with equal files are decoded once.
    """
    views = [np.empty((len(rows), *geometry.size), np.uint8) for geometry in geometries]
    places, faults = dict[bytes, int | str](), dict[int, str]()
    here, last, done = dict[int, int | str](), None, 0
    for number, batch, index in _wanted(table, rows):
        here, last = (here, batch) if batch is last else ({}, batch)
        place = here.get(index)
        if place is None:
            raw = batch.values[index].as_py() if batch.values is not None and index >= 0 else b""
            key = blake2b(raw or b"", digest_size=16).digest()
            place = places.get(key)
            if place is None:
                place = places[key] = _decoded(raw or b"", geometries, views, done)
            here[index] = place
        if isinstance(place, str):
            faults[number] = place
            continue
        if place != done:
            for pixels in views:
                pixels[done] = pixels[place]
        done += 1
    return [pixels[:done] for pixels in views], faults


def _decoded(raw: bytes, geometries: Sequence[Geometry], views: Sequence[NDArray[np.uint8]], place: int) -> int | str:
    """Decode an image into its place; returns the place, or the reason why it cannot be decoded."""
    try:
        found = decode_image(raw, geometries, "image")
    except DataError as error:
        return str(error).removeprefix("image: ")
    for pixels, one in zip(views, found, strict=True):
        pixels[place] = one
    return place


def _wanted(table: ImageTable, rows: Rows) -> Iterator[tuple[int, Batch, int]]:
    """Number of each row, its batch, and which of the batch's values its image is; -1 where it has none."""
    place = 0
    for batch in table.batches(labels=False):
        if place == len(rows):
            return
        indices = _integers(batch.indices)
        while place < len(rows) and rows[place] < batch.first + len(indices):
            yield int(rows[place]), batch, int(indices[rows[place] - batch.first])
            place += 1
