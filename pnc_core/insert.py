"""Insertion: join a target's trunk and a source's tail at one pair of positions.

`stitch` fits the ridge adapter, `localize` cuts the tail down to the channels
that matter through this adapter, `match_features` trains the adapter and the
channel calibration. All of it is label-free but the localization score.

Source: the paper's abstract (localization and insertion improve each other);
matching features before any classification loss is our own
choice: trained by cross-entropy on few images, good features get worse.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pnc_core.adapter import Adapter, fit_adapter, input_adapter
from pnc_core.config import Position
from pnc_core.data import ImageSet
from pnc_core.extract import Tail, extract, open_tail
from pnc_core.head import HeadInputs, pool_taps
from pnc_core.job import Batch, Job
from pnc_core.localize import choose_channels, score_channels
from pnc_core.positions import INPUT

MAX_ROWS = 60_000
"""Rows at most that a head is fitted on: with many images fewer views are drawn."""
SCORED_IMAGES = 2000
"""Images of the cloned classes that localization looks at, at most."""


@dataclass(frozen=True)
class Insertion:
    """A source's tail behind an adapter, at one pair of positions."""

    position: Position
    adapter: Adapter
    tail: Tail
    whole: int
    """Numbers of the uncut tail, to say which fraction was kept."""

    def forward(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A(phi) through the tail: logits (N, K) and the tail's taps."""
        return self.tail.forward(self.adapter(batch.target[self.position.target]))

    @property
    def trained_numbers(self) -> int:
        """Adapter and calibration."""
        return sum(p.numel() for p in self.parameters())

    def parameters(self) -> list[nn.Parameter]:
        """What insertion learns; the tail's copied numbers are not among them."""
        gates = [p for gate in self.tail.gates.values() for p in gate.parameters()]
        return [*self.adapter.parameters(), *gates]


def stitch(job: Job, position: Position, images: ImageSet) -> Insertion:
    """The ridge adapter and the whole tail at `position`.

    Raises:
        PositionError: nothing can be inserted there.
    """
    target, source = job.target.position(position.target), job.source.position(position.source)
    tail = open_tail(job.source, position.source, job.cloned)
    if position.target == position.source == INPUT and target.shape == source.shape:
        adapter = input_adapter(target, source, (job.target.spec, job.source.spec))
    else:
        adapter = fit_adapter(
            target, source, ((b.target[position.target], b.source[position.source]) for b in job.read(images))
        )
    return Insertion(position, adapter.to(job.source.device), tail, tail.numbers)


def localize(job: Job, insertion: Insertion) -> Insertion:
    """Keep the channels that carry the cloned classes, scored through the stitched input."""
    images = job.train.only(job.config.classes).sample(SCORED_IMAGES, job.generator("score"))
    adapter, start = insertion.adapter, insertion.position.target

    def stitched() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in job.read(images):
            yield adapter(batch.target[start]).detach(), batch.labels

    generator = job.generator("localize", insertion.position)
    scores = score_channels(insertion.tail, stitched(), job.config.localizer, generator)
    kept = choose_channels(insertion.tail, scores, job.config.keep)
    return replace(insertion, tail=extract(insertion.tail, kept))


def match_features(
    job: Job, insertion: Insertion, epochs: int, round_name: str, step: Callable[[float, float], None]
) -> None:
    """Train adapter and calibration until the tail's activations match the source's own.

    AdamW with a one-cycle schedule; the copied tail stays frozen, norms in eval mode.

    Args:
        job: Images and frozen networks.
        insertion: Trained in place.
        epochs: Passes over the training images; with 0 nothing happens.
        round_name: Names the random order.
        step: Called with (share done 0..1, loss) after every batch.
    """
    generator = job.generator("match", insertion.position, round_name)
    total = epochs * -(-len(job.train) // job.config.batch_size)
    parameters = insertion.parameters()
    rate = job.config.learning_rate
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(2, total), pct_start=0.2)
    done = 0
    for _ in range(epochs):
        for batch in job.read(job.train, generator):
            loss = _mismatch(insertion, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            step(done / total, float(loss.detach()))


def _mismatch(insertion: Insertion, batch: Batch) -> Tensor:
    """Squared difference over the source's variance: every tap once, the last twice, the logits once."""
    logits, taps = insertion.forward(batch)
    tail = insertion.tail
    weights = [1.0] * (len(taps) - 1) + [2.0]
    loss = _relative_error(logits, batch.own)
    for name, axis, group, tap, weight in zip(tail.taps, tail.tap_axes, tail.tap_groups, taps, weights, strict=False):
        wanted = batch.source[name]
        if group is not None:
            wanted = wanted.index_select(axis, tail.kept[group].to(wanted.device))
        loss = loss + weight * _relative_error(tap, wanted)
    return loss


def _relative_error(got: Tensor, wanted: Tensor) -> Tensor:
    return (got - wanted).square().mean() / wanted.var().clamp_min(1e-8)


def head_inputs(job: Job, insertion: Insertion, images: ImageSet, grids: Sequence[int], views: int) -> list[HeadInputs]:
    """What heads see of `images`: logits of both sides and the pooled taps, once for every grid.

    Args:
        job: The frozen networks.
        insertion: The module.
        images: N images.
        grids: Taps are pooled to this many cells a side.
        views: Rows of this many augmented views of every image follow the images' own.
    """
    views = min(views, max(1, MAX_ROWS // len(images)))
    passes: list[torch.Generator | None] = [None, *(job.generator("view", i) for i in range(views))]
    rows = [_head_rows(job, insertion, b, grids) for generator in passes for b in job.read(images, generator)]
    old, own, labels, *features = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return [HeadInputs(old, own, pooled, labels) for pooled in features]


def _head_rows(job: Job, insertion: Insertion, batch: Batch, grids: Sequence[int]) -> tuple[Tensor, ...]:
    infos = [p for p in job.target.positions if p.name != INPUT]
    with torch.no_grad():
        own, made = insertion.forward(batch)
    taps = [*(batch.target[p.name] for p in infos), *made]
    axes = [*(p.axis for p in infos), *insertion.tail.tap_axes]
    return batch.old, own, batch.labels, *(pool_taps(taps, axes, grid) for grid in grids)
