"""Insertion: join the first part of a target and the tail of a source at one pair of positions.

`stitch` fits the adapter A by ridge regression on the images' activations phi of the target and psi of the source:

    min_A sum_x |A(phi(x)) - psi(x)|^2 + ridge |A|^2

`localize` cuts the tail down to the channels that matter behind A. `pnc_core.method.learn.insert` then trains the
adapters.

Source: the paper's abstract (localization and insertion improve each other);
the start from a ridge regression is our own choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pnc_core.config import Position
from pnc_core.errors import PositionError
from pnc_core.graph.cost import count_macs
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import INPUT
from pnc_core.images import ImageSet
from pnc_core.method.budget import Bounds
from pnc_core.method.heads.fit import HeadInputs
from pnc_core.method.job import Batch, Job, traced_step
from pnc_core.method.localize import Scores, score_channels
from pnc_core.method.mask import choose_channels
from pnc_core.module.adapter import Adapter, AdapterFit, input_adapter, takes_the_same_images
from pnc_core.module.head import TapWindow, against, log_odds, pool_taps, tap_width
from pnc_core.module.tail import Tail, extract, open_tail

MAX_ROWS = 40_000
"""Upper bound on (images of the job) x (views per image) for fitting heads. Many images get fewer views each."""
SCORED_IMAGES = 2000
"""Largest number of images of the cloned classes for localization."""


@dataclass(frozen=True)
class Insertion:
    """An adapter and a source's tail at one pair of positions: a module without its head."""

    position: Position
    adapter: Adapter
    tail: Tail
    whole: int
    """Copied numbers of the uncut tail."""
    cloned: int
    """Number K of cloned classes."""
    learned: bool = True
    """Whether adapter, mask or parallel adapters depend on the images."""

    @property
    def odds(self) -> bool:
        """Whether the tail keeps the rows of all classes, cloned classes first, so that its logits become log-odds.

        Only the whole source does; it has not learned from the images.
        """
        return not self.learned

    def forward(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the tail on A(phi): logits (N, K) and the tail's taps."""
        logits, taps = self.tail.forward(self.adapter(batch.phi(self.position, self.adapter)))
        return (log_odds(logits.float(), self.cloned) if self.odds else logits), taps

    @property
    def parameter_count(self) -> int:
        """Copied and trained numbers, without the head."""
        return self.tail.parameter_count + self.trained_parameter_count

    @property
    def trained_parameter_count(self) -> int:
        """Numbers of adapter, calibration and parallel adapters."""
        return sum(p.numel() for p in self.parameters())

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of adapter, calibration and parallel adapters; copied numbers are not trained."""
        parts = [part for kind in self.tail.learned.values() for part in kind.values()]
        return [*self.adapter.parameters(), *(p for part in parts for p in part.parameters())]


def module_macs(job: Job, insertion: Insertion) -> int:
    """Multiply-accumulates that the module adds to one image."""
    phi = torch.zeros(1, *insertion.adapter.shape, device=job.target.device)
    return count_macs(lambda: insertion.tail.forward(insertion.adapter(phi)))


def stitch(job: Job, position: Position, images: ImageSet) -> Insertion:
    """Fit the ridge adapter at `position` and open the uncut tail behind it.

    Raises:
        PositionError: no adapter joins the two positions, or the tail cannot be pruned.
    """
    found = stitch_all(job, [position], images)[position]
    if isinstance(found, PositionError):
        raise found
    return found


def whole_source(job: Job) -> Insertion | None:
    """The whole source behind the image itself, with the rows of all its classes; None if it takes other images.

    It depends on no image of the job: the adapter between two inputs is exact, and nothing is cut.
    """
    if INPUT not in (p.name for p in job.source.positions):
        return None
    ends = job.target.position(INPUT), job.source.position(INPUT)
    if not takes_the_same_images(*ends):
        return None
    others = (row for row in range(len(job.source.spec.classes)) if row not in job.cloned)
    try:
        tail = open_tail(job.source, INPUT, (*job.cloned, *others))
    except PositionError:
        return None
    adapter = input_adapter(*ends, (job.target.spec, job.source.spec))
    stitched = _stitched(job, Position(target=INPUT, source=INPUT), tail, adapter)
    return replace(stitched, learned=False)


@traced_step("adapter")
def stitch_all(job: Job, positions: Sequence[Position], images: ImageSet) -> dict[Position, Insertion | PositionError]:
    """`stitch` at many positions with one pass of both networks; a position that fails maps to its error."""
    begun: dict[Position, tuple[Tail, Adapter | AdapterFit] | PositionError] = {}
    fits: dict[Position, AdapterFit] = {}
    for position in positions:
        try:
            begun[position] = started = _begin(job, position)
        except PositionError as error:
            begun[position] = error
        else:
            fits |= {position: started[1]} if isinstance(started[1], AdapterFit) else {}
    if fits:
        target = Reader(job.target, [p.target for p in fits], logits=False)
        source = Reader(job.source, [p.source for p in fits], logits=False)
        for batch in job.read(images, target=target, source=source):
            for position, fit in fits.items():
                fit.add(batch.target[position.target], batch.source[position.source])
    return {p: row if isinstance(row, PositionError) else _stitched(job, p, *row) for p, row in begun.items()}


def _begin(job: Job, position: Position) -> tuple[Tail, Adapter | AdapterFit]:
    target, source = job.target.position(position.target), job.source.position(position.source)
    tail = open_tail(job.source, position.source, job.cloned)
    if takes_the_same_images(target, source):
        return tail, input_adapter(target, source, (job.target.spec, job.source.spec))
    return tail, AdapterFit(target, source)


def _stitched(job: Job, position: Position, tail: Tail, fit: Adapter | AdapterFit) -> Insertion:
    adapter = fit.adapter() if isinstance(fit, AdapterFit) else fit
    tail.part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Insertion(position, adapter.to(job.source.device), tail, tail.parameter_count, len(job.cloned))


@traced_step("localization")
def localize(job: Job, insertion: Insertion, *, bounded: bool = True) -> Insertion:
    """Score the channels on the stitched input and cut the tail down to the chosen ones.

    Args:
        job: Images and frozen networks.
        insertion: Stitched, with an uncut tail; not changed.
        bounded: Also keep `max_size` and `max_macs`, if need be with fewer channels than `keep` allows.

    Raises:
        PositionError: even one channel per group exceeds the bounds.
    """
    within_bounds = bounds_of(job, insertion).hold_for if bounded else None
    kept = choose_channels(
        insertion.tail, score(job, insertion), job.config.keep, job.importance_bias(insertion.tail), within_bounds
    )
    return replace(insertion, tail=extract(insertion.tail, kept))


def bounds_of(job: Job, insertion: Insertion) -> Bounds:
    """Bounds on the whole module that is cut from a stitched insertion.

    Raises:
        PositionError: even one channel per group exceeds the bounds.
    """
    return Bounds(job, insertion.position, insertion.adapter, insertion.tail)


def score(job: Job, insertion: Insertion) -> Scores:
    """Scores of all channels of an uncut tail, by the configured localizer."""
    images = job.train.only(job.config.classes).sample(SCORED_IMAGES, job.generator("score"))
    adapter, start = insertion.adapter, insertion.position.target
    target, source = Reader(job.target, [start], logits=False), Reader(job.source, [], logits=False)

    def stitched() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in job.read(images, target=target, source=source):
            yield adapter(batch.phi(insertion.position, adapter).float()).detach(), batch.labels

    return score_channels(
        insertion.tail, stitched(), job.config.localizer, job.generator("localize", insertion.position)
    )


def head_inputs(job: Job, insertion: Insertion, images: ImageSet, grids: Sequence[int], views: int) -> list[HeadInputs]:
    """Inputs of a head for every image: logits of target and module, and the pooled taps.

    Args:
        job: The frozen networks.
        insertion: The module.
        images: N images.
        grids: Numbers of cells per side to pool taps to.
        views: Number of augmented views per image. Their rows follow the rows of the images.

    Returns:
        One `HeadInputs` per grid.
    """
    return head_inputs_of_all(job, [insertion], images, grids, views)[0]


def head_inputs_of_all(
    job: Job, insertions: Sequence[Insertion], images: ImageSet, grids: Sequence[int], views: int
) -> list[list[HeadInputs]]:
    """`head_inputs` of several modules with one pass of the target."""
    target = Reader(job.target, [p.name for p in job.target.positions])
    source = Reader(job.source, [], logits=False)
    rows: list[list[tuple[Tensor, ...]]] = [[] for _ in insertions]
    for generator in [None, *_views(job, views)]:
        for batch in job.read(images, generator, target=target, source=source):
            for mine, insertion in zip(rows, insertions, strict=True):
                mine.append(_head_rows(job, insertion, batch, grids))
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


def _head_rows(job: Job, insertion: Insertion, batch: Batch, grids: Sequence[int]) -> tuple[Tensor, ...]:
    with torch.no_grad(), job.autocast():
        own, made = insertion.forward(batch)
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
