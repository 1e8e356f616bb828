"""Insertion: join the first part of a target and the tail of a source at one pair of positions.

`stitch` fits the adapter A by ridge regression on the images' activations phi of the target and psi of the source:

    min_A sum_x |A(phi(x)) - psi(x)|^2 + ridge |A|^2

`localize` cuts the tail down to the channels that matter behind A. `pnc_core.method.learn.insert` then trains the
adapters.

Source: the paper's abstract (localization and insertion improve each other);
the start from a ridge regression is our own choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from pnc_core.config import Position
from pnc_core.errors import PositionError
from pnc_core.graph.cost import count_macs
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import INPUT
from pnc_core.images import ImageSet
from pnc_core.method.budget import Bounds
from pnc_core.method.job import Batch, Job, traced_step
from pnc_core.method.localize import Scores, score_channels
from pnc_core.method.mask import choose_channels
from pnc_core.module.adapter import Adapter, AdapterFit, input_adapter, takes_the_same_images
from pnc_core.module.head import log_odds
from pnc_core.module.tail import Tail, extract, open_tail

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
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Of a module of the whole source: the tail's row of each class of the source, int64 (C,)."""
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
        logits, taps = self.run(batch)
        return self.own(logits), taps

    def run(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the tail on A(phi): logits of all rows that the tail keeps, and the tail's taps."""
        return self.tail.forward(self.adapter(batch.phi(self.position, self.adapter)))

    def own(self, logits: Tensor) -> Tensor:
        """Logits (N, K) of the cloned classes from the logits that `run` gives."""
        return log_odds(logits.float(), self.cloned) if self.odds else logits

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
    kept = (*job.cloned, *(row for row in range(len(job.source.spec.classes)) if row not in job.cloned))
    try:
        tail = open_tail(job.source, INPUT, kept)
    except PositionError:
        return None
    adapter = input_adapter(*ends, (job.target.spec, job.source.spec))
    stitched = _stitched(job, Position(target=INPUT, source=INPUT), tail, adapter)
    return replace(stitched, learned=False, order=torch.tensor(kept).argsort())


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
