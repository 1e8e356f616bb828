"""Screen pairs of positions without training: where to read the target and where to enter the source.

For every candidate pair:

1. Fit the ridge adapter on three quarters of a probe set, and run the uncut tail behind it.
2. Fit a ridge classifier W on x = (last tap of target, last tap of module, logits of both), with one-hot labels y.
3. On the last quarter of the probe set compute the squared error E |W x - y|^2, where old and new images weigh half
   each.

Pairs are ranked by the squared error of this joint classifier. The accuracy is reported too, but it does not rank: on a
few hundred images the accuracies of similar positions differ by chance. The best pairs are then trained
(`pnc_core.method.trials`).

Source: the paper's abstract (positional search). The screen is our own choice: all candidates share two passes of both
networks over the probe set, and each candidate adds two passes of its tail.
"""

import gc
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import CloneConfig, Position
from pnc_core.devices import full_precision
from pnc_core.errors import PositionError
from pnc_core.graph.cost import Cost
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import INPUT, PositionInfo, Traced
from pnc_core.images import ImageSet
from pnc_core.method.budget import limits
from pnc_core.method.checkpoints import State
from pnc_core.method.heads.fit import Accuracy, accuracy, balance
from pnc_core.method.insert import Insertion, bounds_of, module_macs, stitch_all
from pnc_core.method.job import Batch, Job, Progress, traced_step
from pnc_core.module.adapter import ridge_solutions, takes_the_same_images
from pnc_core.module.head import pool_taps

COLLECTED = 5_000_000
"""From this number of parameters and buffers of the source on, the screen's tails are garbage-collected at once."""
MAX_CANDIDATES, FEW_CANDIDATES = 32, 16
"""Largest number of screened pairs, and that of an economical job; pairs of similar depth come first."""
FEW_IMAGES, FEW_OF_A_CLASS = 0.3, 8
"""Screened images of an economical job: this share of the training images, but at least this many per class."""
SCREEN_SHARE, TRIAL_SHARE = 0.2, 0.2
"""Shares of the job's progress for the screen and for the trials."""
RIDGES = (1e-2, 1e-1, 1.0)
"""Candidate ridges of the screen's classifier; held-out images choose one for every pair.

With few images per class a ridge of 1e-2 fits noise, more so with more features: on CIFAR-100 it preferred the last
blocks.
"""
SCREEN = "screen"
"""Name of the screen among a job's steps."""


@dataclass(frozen=True)
class Trial:
    """Result of one pair of positions in one round."""

    target_position: str
    source_position: str
    round: int
    """0: screened without training; 1 and up: trained, longer in each round."""
    old: float | None
    """Accuracy on held-out images of old classes; None if the job has none."""
    new: float | None
    """Accuracy on held-out images of cloned classes."""
    score: float
    """Mean of both accuracies."""
    parameters: int
    """Numbers of module, adapter and calibration. In round 0 estimated for the share `keep` of the tail."""
    macs: int
    """Multiply-accumulates that the module adds per image. In round 0 estimated for the share `keep` of the tail."""
    seconds: float


def probe_of(job: Job) -> ImageSet:
    """The probe set: images for fitting ridge adapters and comparing positions."""
    most = job.config.screen_images
    if job.is_economical:
        classes = job.old_classes + len(job.cloned)
        most = min(most, max(round(FEW_IMAGES * len(job.train)), FEW_OF_A_CLASS * classes))
    return job.train.sample(most, job.generator("probe"))


def candidates(job: Job) -> list[Position]:
    """The pairs that a job screens, see `candidate_pairs`."""
    return candidate_pairs(job.target, job.source, FEW_CANDIDATES if job.is_economical else MAX_CANDIDATES)


def candidate_pairs(target: Traced, source: Traced, most: int = MAX_CANDIDATES) -> list[Position]:
    """The pairs to screen, at most `most`.

    Pairs of the same kind of tensor on similar grids come first, pairs of a map and tokens last. Within both, pairs of
    the smallest difference in depth come first.
    """
    pairs = [
        (not _alike(t, s), abs(t.depth - s.depth), Position(target=t.name, source=s.name))
        for t in target.positions
        for s in source.positions
        if _joinable(t, s)
    ]
    return [position for *_, position in sorted(pairs, key=lambda pair: pair[:2])[:most]]


def shortlisted(job: Job, ranked: list[Position]) -> list[Position]:
    """The screened positions that are trained. An economical job takes the best one without trials, unless
    `shortlist` differs from its default.
    """
    is_default = job.config.shortlist == CloneConfig.shortlist
    return ranked[: 1 if job.is_economical and is_default else job.config.shortlist]


def _joinable(target: PositionInfo, source: PositionInfo) -> bool:
    if INPUT in (target.name, source.name):
        return takes_the_same_images(target, source)
    other = len(target.shape) != len(source.shape) and target.places is not None and source.places is not None
    return other or _alike(target, source)


def _alike(target: PositionInfo, source: PositionInfo) -> bool:
    """Have both positions the same kind of tensor, and grids that differ by at most a factor of two?

    Network inputs count as alike whatever their size.
    """
    if INPUT in (target.name, source.name) or target.grid == source.grid:
        return len(target.shape) == len(source.shape)
    if len(target.shape) != len(source.shape) or target.places is None or source.places is None:
        return False
    return all(a <= 2 * b and b <= 2 * a for a, b in zip(target.places, source.places, strict=True))


def screen(job: Job) -> list[Position]:
    """Usable candidates in ascending order of their error without training.

    Raises:
        PositionError: no candidate is usable.
    """
    known = job.checkpoints.load(SCREEN)
    if known is not None:
        return [Position(**pair) for pair in known.facts["positions"]]
    ranked = _screen(job)
    if job.source.parameter_count >= COLLECTED:
        gc.collect()  # graphs of tails are cyclic, and the next steps open tails of their own
    job.checkpoints.save(SCREEN, State({"positions": [asdict(position) for position in ranked]}))
    return ranked


@traced_step("screening")
def _screen(job: Job) -> list[Position]:
    started = time.monotonic()
    fit, held = probe_of(job).split(0.25, job.generator("screen"))
    todo = candidates(job)
    usable = [one for one in stitch_all(job, todo, fit).values() if isinstance(one, Insertion)]
    sizes = [(insertion, _expected(job, insertion)) for insertion in usable if _can_fit(job, insertion)]
    # Pairs that must be cut below `keep` are candidates only if no other pair is left.
    most = limits(job)
    fitting = [row for row in sizes if row[1].within(most)] or [(one, cost.capped(most)) for one, cost in sizes]
    if not fitting:
        raise PositionError(
            f"positions: expected at least one usable pair among {len(todo)}, got none whose whole module has at most "
            f"{job.config.size_limit} of the source's size"
            + (f" and {job.config.max_macs} of its multiply-accumulates" if job.config.max_macs else "")
            + " with a single channel of every group; raise max_size (and max_macs)"
        )
    stitched = time.monotonic() - started
    scores = _screen_scores(job, [row[0] for row in fitting], fit, held)
    found = []
    for number, ((insertion, cost), (score, error, seconds)) in enumerate(zip(fitting, scores, strict=True), 1):
        shared = stitched / len(fitting)
        trial = trial_of(insertion.position, 0, score, cost.parameter_count, cost.macs, shared + seconds)
        report_trial(job, trial, SCREEN_SHARE * number / len(fitting))
        found.append((error, insertion.position))
    return [position for _, position in sorted(found, key=lambda row: row[0])]


def _can_fit(job: Job, insertion: Insertion) -> bool:
    """Is the module within its bounds with one channel per group?"""
    try:
        bounds_of(job, insertion)
    except PositionError:
        return False
    return True


def _expected(job: Job, insertion: Insertion) -> Cost:
    """Estimated cost after the tail is cut down to the share `keep`."""
    keep = job.config.keep
    return Cost(
        int(insertion.whole * keep) + insertion.trained_parameter_count, int(module_macs(job, insertion) * keep)
    )


@full_precision()
def _screen_scores(
    job: Job, insertions: list[Insertion], fit: ImageSet, held: ImageSet
) -> list[tuple[Accuracy, float, float]]:
    """Joint accuracy, squared error and seconds of the ridge classifier, for every insertion."""
    columns = [_last_features(job, insertions, images) for images in (fit, held)]
    found = []
    for (x, labels, spent), (x_held, labels_held, spent_held) in zip(*columns, strict=True):
        started = time.monotonic()
        classes = job.old_classes + len(job.cloned)
        weights = balance(labels_held, job.old_classes).float()
        tried = []
        for solution in ridge_solutions(x, F.one_hot(labels, classes), RIDGES):
            answers = F.linear(x_held, *solution)
            errors = (answers - F.one_hot(labels_held, classes)).square().sum(1)
            tried.append((float(errors @ weights), accuracy(answers, labels_held, job.old_classes)))
        error, score = min(tried, key=lambda one: one[0])
        found.append((score, error, time.monotonic() - started + spent + spent_held))
    return found


def _last_features(job: Job, insertions: list[Insertion], images: ImageSet) -> list[tuple[Tensor, Tensor, float]]:
    last = job.target.positions[-1]
    target = Reader(job.target, [last.name, *(i.position.target for i in insertions)])
    source = Reader(job.source, [], logits=False)
    rows: list[list[Tensor]] = [[] for _ in insertions]
    seconds = [0.0] * len(insertions)
    labels = []
    for batch in job.read(images, target=target, source=source):
        labels.append(batch.labels.cpu())
        for number, insertion in enumerate(insertions):
            started = time.monotonic()
            rows[number].append(_last_of_both(job, insertion, batch, last).cpu())
            seconds[number] += time.monotonic() - started
    return [(torch.cat(mine), torch.cat(labels), spent) for mine, spent in zip(rows, seconds, strict=True)]


def _last_of_both(job: Job, insertion: Insertion, batch: Batch, last: PositionInfo) -> Tensor:
    with torch.no_grad(), job.autocast():
        own, taps = insertion.forward(batch)
    seen = pool_taps([batch.target[last.name]], [last.axis], 1)
    made = pool_taps(taps[-1:], insertion.tail.tap_axes[-1:], 1) if taps else own
    return torch.cat([seen.float(), made.float(), batch.old, own.float()], dim=1)


def trial_of(position: Position, number: int, score: Accuracy, size: int, macs: int, seconds: float) -> Trial:
    """A trial from its parts."""
    return Trial(position.target, position.source, number, score.old, score.new, score.average, size, macs, seconds)


def report_trial(job: Job, trial: Trial, done: float) -> None:
    """Report a trial as progress of the job."""
    stage = "inserting" if trial.round else "screening"
    where = f"{trial.target_position}->{trial.source_position}"
    job.report(Progress(stage, done, f"{where}: joint accuracy {trial.score:.3f}", {"trial": asdict(trial)}))
