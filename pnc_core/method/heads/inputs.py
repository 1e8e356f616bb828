"""Inputs of heads: logits and pooled taps of target and module, for images and their augmented views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pnc_core.graph.features import Reader
from pnc_core.images import ImageSet
from pnc_core.method.heads.fit import HeadInputs
from pnc_core.method.insert import Insertion
from pnc_core.method.job import Batch, Job
from pnc_core.module.head import TapWindow, against, pool_taps, tap_width

MAX_ROWS = 40_000
"""Upper bound on (images of the job) x (views per image) for fitting heads. Many images get fewer views each."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of both frozen networks and of one module for N images as they are, without augmented views.

    One pass of both networks serves the heads, their comparison and the verdict.
    """

    rows: dict[int, HeadInputs]
    """Inputs of heads, by number of cells per side of the pooled taps."""
    old: Tensor
    """Logits of the target (N, N_old)."""
    every: Tensor
    """Logits of the source for all its classes (N, C)."""

    @property
    def own(self) -> Tensor:
        """Logits of the module for the cloned classes (N, K)."""
        return next(iter(self.rows.values())).own

    def with_own(self, logits: Tensor) -> "Outputs":
        """The same outputs with other logits (N, K) of the module."""
        return replace(self, rows={grid: replace(rows, own=logits) for grid, rows in self.rows.items()})

    def take(self, images: Tensor) -> "Outputs":
        """The outputs for the images at int64 or bool `images`."""
        return Outputs({g: rows.take(images) for g, rows in self.rows.items()}, self.old[images], self.every[images])


def outputs_of_all(job: Job, modules: Sequence[tuple[Insertion, Sequence[int]]], images: ImageSet) -> list[Outputs]:
    """Outputs for all images with one pass of both networks.

    Args:
        job: The frozen networks.
        modules: Each module, and the numbers of cells per side to pool its taps to.
        images: N images.

    Returns:
        One `Outputs` per module.
    """
    wholes = [number for number, (insertion, _) in enumerate(modules) if insertion.odds]
    target = Reader(job.target, [p.name for p in job.target.positions])
    source = Reader(job.source, [], logits=not wholes)
    rows: list[list[tuple[Tensor, ...]]] = [[] for _ in modules]
    sides: list[tuple[Tensor, Tensor]] = []
    for batch in job.read(images, target=target, source=source):
        every = batch.every
        for number, (insertion, grids) in enumerate(modules):
            with torch.no_grad(), job.autocast():
                logits, made = insertion.run(batch)
            rows[number].append(_head_rows(job, insertion, batch, logits, made, grids))
            if number in wholes:
                every = logits[:, insertion.order.to(logits.device)].float()
        sides.append((batch.old.cpu(), every.cpu()))
    old, of_source = (torch.cat(column) for column in zip(*sides, strict=True))
    found = zip(modules, rows, strict=True)
    return [Outputs(dict(zip(grids, _joined(mine), strict=True)), old, of_source) for (_, grids), mine in found]


def head_inputs(
    job: Job,
    insertion: Insertion,
    images: ImageSet,
    grids: Sequence[int],
    views: int,
    plain: Mapping[int, HeadInputs] | None = None,
) -> list[HeadInputs]:
    """Inputs of a head for every image: logits of target and module, and the pooled taps.

    Args:
        job: The frozen networks.
        insertion: The module.
        images: N images.
        grids: Numbers of cells per side to pool taps to.
        views: Number of augmented views per image. Their rows follow the rows of the images.
        plain: The rows of the images, by grid, if they are known. Then only the views are read.

    Returns:
        One `HeadInputs` per grid.
    """
    if plain is None:
        return head_inputs_of_all(job, [insertion], images, grids, views)[0]
    if not views:
        return [plain[grid] for grid in grids]
    seen = _read(job, [insertion], images, grids, _views(job, views))[0]
    return [plain[grid].join(more) for grid, more in zip(grids, seen, strict=True)]


def head_inputs_of_all(
    job: Job, insertions: Sequence[Insertion], images: ImageSet, grids: Sequence[int], views: int
) -> list[list[HeadInputs]]:
    """`head_inputs` of several modules with one pass of the target."""
    return _read(job, insertions, images, grids, [None, *_views(job, views)])


def _read(
    job: Job,
    insertions: Sequence[Insertion],
    images: ImageSet,
    grids: Sequence[int],
    generators: Sequence[torch.Generator | None],
) -> list[list[HeadInputs]]:
    target = Reader(job.target, [p.name for p in job.target.positions])
    source = Reader(job.source, [], logits=False)
    rows: list[list[tuple[Tensor, ...]]] = [[] for _ in insertions]
    for generator in generators:
        for batch in job.read(images, generator, target=target, source=source):
            for mine, insertion in zip(rows, insertions, strict=True):
                with torch.no_grad(), job.autocast():
                    logits, made = insertion.run(batch)
                mine.append(_head_rows(job, insertion, batch, logits, made, grids))
    return [_joined(mine) for mine in rows]


def _views(job: Job, views: int) -> list[torch.Generator]:
    """One random generator per view. It draws the order of the images first, then their augmentations."""
    return [job.generator("view", i) for i in range(views_of(len(job.train) + len(job.validation), views))]


def views_of(images: int, views: int) -> int:
    """Number of views per image: min(views, max(1, MAX_ROWS // images))."""
    return min(views, max(1, MAX_ROWS // images))


def mean_by_image(job: Job, values: Tensor, images: int, views: int) -> Tensor:
    """Mean (images,) over each image and its views.

    Args:
        job: As for `head_inputs`.
        values: One value per row of `head_inputs`, (rows,), in the same order.
        images: Number of images.
        views: As for `head_inputs`.
    """
    shown = shown_by(job, images, views)
    return values.new_zeros(images).index_add(0, shown, values) / (len(shown) // images)


def shown_by(job: Job, images: int, views: int) -> Tensor:
    """Image that each row of `head_inputs` shows, int64 (rows,); arguments as for `mean_by_image`."""
    orders = [torch.randperm(images, generator=generator) for generator in _views(job, views)]
    return torch.cat([torch.arange(images), *orders])


def _joined(rows: list[tuple[Tensor, ...]]) -> list[HeadInputs]:
    old, own, labels, *features = (torch.cat(column) for column in zip(*rows, strict=True))
    return [HeadInputs(old, own, pooled, labels) for pooled in features]


def _head_rows(
    job: Job, insertion: Insertion, batch: Batch, logits: Tensor, made: Sequence[Tensor], grids: Sequence[int]
) -> tuple[Tensor, ...]:
    with torch.no_grad():
        own = insertion.own(logits)
    pooled = (tap_features(job, insertion, batch, made, grid) for grid in grids)
    # The same probabilities as with the shift that `Composed.join` adds to the new logits.
    old = batch.old - against(batch.old) if insertion.odds else batch.old
    return tuple(t.cpu() for t in (old, own.float(), batch.labels, *pooled))


def tap_widths(job: Job, insertion: Insertion, grid: int) -> tuple[list[int], list[int]]:
    """Number of features per tap of the target, and per tap of the module, in the order of `head_inputs`."""
    tail = insertion.tail
    made = zip(tail.tap_channels(job.source), map(job.source.position, tail.taps), strict=True)
    seen = [tap_width(p.channels, p.grid, grid) for p in job.target.taps]
    return seen, [tap_width(channels, p.grid, grid) for channels, p in made]


def last_taps(job: Job, insertion: Insertion, inputs: HeadInputs, grid: int, tap_window: TapWindow) -> HeadInputs:
    """The same rows, with only the last taps of target and module that `tap_window` names."""
    seen, made = tap_widths(job, insertion, grid)
    widths = [*seen, *made]
    read = [*range(len(seen))[-tap_window.target :], *range(len(seen), len(widths))[-tap_window.module :]]
    columns = torch.arange(sum(widths)).split(widths)
    return replace(inputs, features=inputs.features[:, torch.cat([columns[tap] for tap in read])])


def tap_features(job: Job, insertion: Insertion, batch: Batch, made: Sequence[Tensor], grid: int) -> Tensor:
    """Pooled taps of target and module, float32 (N, D), as a head reads them."""
    taps = [*(batch.target[p.name] for p in job.target.taps), *made]
    axes = [*(p.axis for p in job.target.taps), *insertion.tail.tap_axes]
    return pool_taps(taps, axes, grid)
