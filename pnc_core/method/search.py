"""Position search without training: where to read the target and where to enter the source.

For every candidate pair the ridge adapter is fitted on three quarters of a probe set, the source's whole tail is
run behind it, and a ridge classifier on both networks' last features is judged on the last quarter. What is judged
is the *composed network*: neither the branch's own accuracy nor the adapter's fit ranks positions. Joint accuracy is
reported, the classifier's squared error ranks: on a few hundred images accuracies of like positions differ by chance.
The best few are then tried with training, in `pnc_core.method.trials`.

Source: the paper's abstract (positional search); the screen is our own choice: all
candidates share two passes of both networks over the probe, and each adds two passes of its tail.
"""

import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Position
from pnc_core.devices import full_precision
from pnc_core.errors import PositionError
from pnc_core.graph.cost import Cost
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import INPUT, PositionInfo
from pnc_core.images import ImageSet
from pnc_core.method.budget import limits
from pnc_core.method.checkpoints import State
from pnc_core.method.heads.fit import Accuracy, accuracy, balance
from pnc_core.method.insert import Insertion, bounds_of, module_macs, stitch_all
from pnc_core.method.job import Batch, Job, Progress, traced_step
from pnc_core.module.adapter import RidgeSums, takes_the_same_images
from pnc_core.module.head import pool_taps

MAX_CANDIDATES = 32
"""Pairs that are screened at most: those whose depths agree best."""
SCREEN_SHARE, TRIAL_SHARE = 0.2, 0.2
"""Shares of the job's time, for progress."""
RIDGES = (1e-2, 1e-1, 1.0)
"""Of the screen's classifier, among which held-out images choose for every pair. With a few images a class, 1e-2 alone
fits noise, the more so the more there is to read: on CIFAR-100 it put the last blocks first."""
SCREEN = "screen"
"""Its name among a job's steps."""


@dataclass(frozen=True)
class Trial:
    """One pair of positions tried, in one round."""

    target_position: str
    source_position: str
    round: int
    """0: screened without training; then trained, longer each round."""
    old: float | None
    """Accuracy on old classes; None if the job has no images of them."""
    new: float | None
    score: float
    """Mean of both accuracies on images the trial did not learn from."""
    parameters: int
    """Numbers of module, adapter and calibration together; of a screened pair as `keep` will leave it."""
    macs: int
    """Multiply-accumulates that the module adds to one image; likewise."""
    seconds: float


def probe_of(job: Job) -> ImageSet:
    """The images that ridge adapters are fitted on and positions compared with."""
    return job.train.sample(job.config.screen_images, job.generator("probe"))


def candidates(job: Job) -> list[Position]:
    """Pairs worth screening: like kinds on like grids before maps that meet tokens, and of either the likest depths."""
    pairs = [
        (not _alike(t, s), abs(t.depth - s.depth), Position(target=t.name, source=s.name))
        for t in job.target.positions
        for s in job.source.positions
        if _joinable(t, s)
    ]
    return [position for *_, position in sorted(pairs, key=lambda pair: pair[:2])[:MAX_CANDIDATES]]


def _joinable(target: PositionInfo, source: PositionInfo) -> bool:
    if INPUT in (target.name, source.name):
        return takes_the_same_images(target, source)
    other = len(target.shape) != len(source.shape) and target.places is not None and source.places is not None
    return other or _alike(target, source)


def _alike(target: PositionInfo, source: PositionInfo) -> bool:
    """The same kind of tensor, and grids within a factor of two; images are all alike."""
    if INPUT in (target.name, source.name) or target.grid == source.grid:
        return len(target.shape) == len(source.shape)
    if len(target.shape) != len(source.shape) or target.places is None or source.places is None:
        return False
    return all(a <= 2 * b and b <= 2 * a for a, b in zip(target.places, source.places, strict=True))


def screen(job: Job) -> list[Position]:
    """Candidates by their error without training, best first; unusable ones are left out.

    Raises:
        PositionError: none is usable.
    """
    known = job.checkpoints.load(SCREEN)
    if known is not None:
        return [Position(**pair) for pair in known.facts["positions"]]
    ranked = _screen(job)
    job.checkpoints.save(SCREEN, State({"positions": [asdict(position) for position in ranked]}))
    return ranked


@traced_step("screening")
def _screen(job: Job) -> list[Position]:
    started = time.monotonic()
    fit, held = probe_of(job).split(0.25, job.generator("screen"))
    todo = candidates(job)
    usable = [one for one in stitch_all(job, todo, fit).values() if isinstance(one, Insertion)]
    sizes = [(insertion, _expected(job, insertion)) for insertion in usable if _can_fit(job, insertion)]
    # What has to be cut below `keep` is worth a look only where nothing else is left.
    most = limits(job)
    fitting = [row for row in sizes if row[1].within(most)] or [(one, cost.capped(most)) for one, cost in sizes]
    if not fitting:
        raise PositionError(
            f"positions: expected at least one usable pair among {len(todo)}, got none whose whole module is at most "
            f"{job.config.max_size} of the source's size"
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
    """Can it be cut down until it is within the bounds?"""
    try:
        bounds_of(job, insertion)
    except PositionError:
        return False
    return True


def _expected(job: Job, insertion: Insertion) -> Cost:
    """What it costs, about, once the tail has been cut down to `keep`."""
    keep = job.config.keep
    return Cost(
        int(insertion.whole * keep) + insertion.trained_parameter_count, int(module_macs(job, insertion) * keep)
    )


@full_precision()
def _screen_scores(
    job: Job, insertions: list[Insertion], fit: ImageSet, held: ImageSet
) -> list[tuple[Accuracy, float, float]]:
    """Joint accuracy and squared error of a ridge classifier on the last of both sides, and seconds spent."""
    columns = [_last_features(job, insertions, images) for images in (fit, held)]
    found = []
    for (x, labels, spent), (x_held, labels_held, spent_held) in zip(*columns, strict=True):
        started = time.monotonic()
        classes = job.old_classes + len(job.cloned)
        sums = RidgeSums(x.shape[1], classes)
        sums.add(x, F.one_hot(labels, classes).float())
        weights = balance(labels_held, job.old_classes).float()
        tried = []
        for ridge in RIDGES:
            answers = F.linear(x_held, *sums.solve(ridge))
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
    """A trial as it is reported."""
    return Trial(position.target, position.source, number, score.old, score.new, score.average, size, macs, seconds)


def report_trial(job: Job, trial: Trial, done: float) -> None:
    """Tell whoever follows the job."""
    stage = "inserting" if trial.round else "screening"
    where = f"{trial.target_position}->{trial.source_position}"
    job.report(Progress(stage, done, f"{where}: joint accuracy {trial.score:.3f}", {"trial": asdict(trial)}))
