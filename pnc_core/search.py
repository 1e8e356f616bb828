"""Position search: where to read the target and where to enter the source.

First a screen without training: for every candidate pair the ridge adapter is
fitted on three quarters of a probe set, the source's whole tail is run behind
it, and a ridge classifier on both networks' last features is scored on the last
quarter. What is scored is the *joint accuracy of the composed network*: neither
the branch's own accuracy nor the adapter's fit ranks positions. The best few
are then localized and trained, and halved until one is left; between equals
(within one standard error) the smaller module wins.

Source: the paper's abstract (positional search); the screen is our own choice, it
costs two forward passes a candidate instead of a training.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.adapter import RidgeSums
from pnc_core.config import Position
from pnc_core.data import ImageSet
from pnc_core.errors import PositionError
from pnc_core.head import Accuracy, accuracy, balanced_losses, fit_head, head_logits, not_worse, pool_taps
from pnc_core.insert import Insertion, head_inputs, localize, match_features, stitch
from pnc_core.job import Job, Progress
from pnc_core.positions import INPUT, PositionInfo

MAX_CANDIDATES = 32
"""Pairs that are screened at most: those whose depths agree best."""
SCREEN_SHARE, TRAIN_SHARE = 0.25, 0.65
"""Shares of the job's time, for progress."""


@dataclass(frozen=True)
class Trial:
    """One pair of positions tried, in one round."""

    target_position: str
    source_position: str
    round: int
    """0: screened without training; then trained, longer each round."""
    old: float
    new: float
    score: float
    """Mean of both accuracies on images the trial did not learn from."""
    parameters: int
    """Numbers of module, adapter and calibration together."""
    seconds: float


@dataclass(frozen=True, eq=False)
class _Ranked:
    insertion: Insertion
    trial: Trial
    losses: Tensor
    """Balanced cross-entropy of every held-out view."""


def search(job: Job) -> tuple[Insertion, Trial]:
    """Find the best pair of positions and train there.

    Raises:
        PositionError: no pair can be used.
    """
    fixed = job.config.position
    positions = [fixed] if fixed is not None else screen(job)[: job.config.shortlist]
    return halve(job, positions)


def candidates(job: Job) -> list[Position]:
    """Pairs worth screening: same kind of tensor, grids within a factor of two, like depth."""
    pairs = [
        (abs(t.depth - s.depth), Position(target=t.name, source=s.name))
        for t in job.target.positions
        for s in job.source.positions
        if _joinable(t, s)
    ]
    return [position for _, position in sorted(pairs, key=lambda pair: pair[0])[:MAX_CANDIDATES]]


def _joinable(target: PositionInfo, source: PositionInfo) -> bool:
    if INPUT in (target.name, source.name):
        return target.name == source.name and target.shape == source.shape
    if len(target.shape) != len(source.shape):
        return False
    if len(target.shape) == 2:
        return target.grid == source.grid
    return all(a <= 2 * b and b <= 2 * a for a, b in zip(target.grid, source.grid, strict=True))


def screen(job: Job) -> list[Position]:
    """Candidates by their score without training, best first; unusable ones are left out.

    Raises:
        PositionError: none is usable.
    """
    probe = job.train.sample(job.config.screen_images, job.generator("probe"))
    fit, held = probe.split(0.25, job.generator("screen"))
    found: list[tuple[float, int, Position]] = []
    todo = candidates(job)
    for number, position in enumerate(todo, 1):
        started = time.monotonic()
        try:
            insertion = stitch(job, position, fit)
        except PositionError:
            continue
        size = int(insertion.whole * job.config.keep) + insertion.trained_numbers
        if size > job.config.max_size * job.source.numbers:
            continue
        score = _screen_score(job, insertion, fit, held)
        found.append((score.average, -size, position))
        _report_trial(job, _trial(position, 0, score, size, started), SCREEN_SHARE * number / len(todo))
    if not found:
        raise PositionError(
            f"positions: expected at least one usable pair among {len(todo)}, got none whose module is at most "
            f"{job.config.max_size} of the source; raise max_size, lower keep, or fix a position"
        )
    return [position for _, _, position in sorted(found, key=lambda row: row[:2], reverse=True)]


def _screen_score(job: Job, insertion: Insertion, fit: ImageSet, held: ImageSet) -> Accuracy:
    """Joint accuracy of a ridge classifier on the last features and logits of both sides."""
    classes = job.old_classes + len(job.cloned)
    sums: RidgeSums | None = None
    for features, labels in _last_features(job, insertion, fit):
        sums = sums or RidgeSums(features.shape[1], classes)
        sums.add(features, F.one_hot(labels, classes).float())
    assert sums is not None
    weight, bias = sums.solve(1e-2)
    rows = [(F.linear(x.cpu(), weight, bias), y.cpu()) for x, y in _last_features(job, insertion, held)]
    logits, labels = (torch.cat(column) for column in zip(*rows, strict=True))
    return accuracy(logits, labels, job.old_classes)


def _last_features(job: Job, insertion: Insertion, images: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
    last = job.target.positions[-1]
    for batch in job.read(images):
        with torch.no_grad():
            own, taps = insertion.forward(batch)
        seen = pool_taps([batch.target[last.name]], [last.axis], 1)
        made = pool_taps(taps[-1:], insertion.tail.tap_axes[-1:], 1) if taps else own
        yield torch.cat([seen, made, batch.old, own], dim=1), batch.labels


def halve(job: Job, positions: list[Position]) -> tuple[Insertion, Trial]:
    """Train the positions for a part of the epochs, drop the worse half, until one is left."""
    probe = job.train.sample(job.config.screen_images, job.generator("probe"))
    running = [localize(job, stitch(job, position, probe)) for position in positions]
    plan = _rounds(len(running), job.config.epochs)
    work, done = sum(count * epochs for count, epochs in plan), 0
    ranked: list[_Ranked] = []
    for number, (count, epochs) in enumerate(plan, 1):
        round_ = []
        for insertion in running[:count]:
            round_.append(_train_round(job, insertion, number, epochs, (done / work, epochs / work)))
            done += epochs
        ranked = _best_first(round_)
        running = [row.insertion for row in ranked]
    return ranked[0].insertion, ranked[0].trial


def _rounds(count: int, epochs: int) -> list[tuple[int, int]]:
    """(positions, epochs) of every round: 4 x E/4, 2 x E/4, 1 x the rest; the winner gets all E.

    With few epochs the early rounds have none: their adapters are the ridge's.
    """
    sizes = [count]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    early = epochs // (2 * max(1, len(sizes) - 1))
    return [(size, early) for size in sizes[:-1]] + [(1, epochs - early * (len(sizes) - 1))]


def _best_first(ranked: list[_Ranked]) -> list[_Ranked]:
    """By loss on the held-out images; as good as the best (paired standard error), the smaller module goes first."""
    by_loss = sorted(ranked, key=lambda row: float(row.losses.mean()))
    equals = [row for row in by_loss if not_worse(row.losses, by_loss[0].losses)]
    rest = [row for row in by_loss if row not in equals]
    return sorted(equals, key=lambda row: row.trial.parameters) + rest


def _train_round(job: Job, insertion: Insertion, number: int, epochs: int, span: tuple[float, float]) -> _Ranked:
    started = time.monotonic()

    def step(share: float, loss: float) -> None:
        done = SCREEN_SHARE + TRAIN_SHARE * (span[0] + span[1] * share)
        job.report(Progress("inserting", done, f"{insertion.position}: feature mismatch {loss:.3f}"))

    match_features(job, insertion, epochs, f"round {number}", step)
    score, losses = _quick_score(job, insertion)
    size = insertion.tail.numbers + insertion.trained_numbers
    trial = _trial(insertion.position, number, score, size, started)
    _report_trial(job, trial, SCREEN_SHARE + TRAIN_SHARE * sum(span))
    return _Ranked(insertion, trial, losses)


def _quick_score(job: Job, insertion: Insertion) -> tuple[Accuracy, Tensor]:
    """Joint accuracy and balanced losses with a router on globally pooled taps."""
    (train,) = head_inputs(job, insertion, job.train, (1,), 2)
    (validation,) = head_inputs(job, insertion, job.validation, (1,), 2)
    head = fit_head("router", train)
    return accuracy(head_logits(head, validation), validation.labels, job.old_classes), balanced_losses(
        head, validation
    )


def _trial(position: Position, number: int, score: Accuracy, size: int, started: float) -> Trial:
    return Trial(
        position.target, position.source, number, score.old, score.new, score.average, size, time.monotonic() - started
    )


def _report_trial(job: Job, trial: Trial, done: float) -> None:
    stage = "inserting" if trial.round else "screening"
    where = f"{trial.target_position}->{trial.source_position}"
    job.report(Progress(stage, done, f"{where}: joint accuracy {trial.score:.3f}", {"trial": asdict(trial)}))
