"""Curves: accuracy against the kept share of the source, and accuracy against the pair of positions.

References:
    The paper's abstract and introduction announce analyses of the masking rate and of the insertion
    position. The procedure here is our own choice.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from pnc_core.analysis.evaluation import judge, oracle
from pnc_core.config import CloneConfig, Localizer, NetworkSpec, Position
from pnc_core.errors import ConfigError
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet
from pnc_core.method.heads.fit import HeadInputs, fit_head, head_logits
from pnc_core.method.heads.inputs import head_inputs
from pnc_core.method.insert import Insertion, localize, stitch
from pnc_core.method.job import Job, prepare
from pnc_core.method.learn import match_features
from pnc_core.method.search import Trial

CONTROL: Localizer = "random"
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1)
OnPoint = Callable[[float, str], None]
"""Called after every point with the share of the work done, 0..1, and a short description of the point."""


@dataclass(frozen=True)
class MaskingPoint:
    """Figures of a module that was cut down to a share of the tail."""

    keep: float
    """Share of the tail's numbers to keep."""
    localizer: Localizer
    seed: int
    old: float
    """As in `Evaluation`; also `new`, `average` and `locality`."""
    new: float
    average: float
    locality: float
    own: float
    """Accuracy of the module's own logits on cloned classes; only cloned classes compete, so routing has no effect."""
    numbers: int
    """Numbers of kept slices, adapter, calibration and head."""
    size: float
    """`numbers` / numbers of the source."""


def masking_curve(
    target: tuple[nn.Module, NetworkSpec],
    source: tuple[nn.Module, NetworkSpec],
    images: ImageSet,
    config: CloneConfig,
    *,
    test: ImageSet | None = None,
    shares: Sequence[float] = SHARES,
    localizers: Sequence[Localizer] | None = None,
    seeds: Sequence[int] = (0,),
    epochs: int = 3,
    step: OnPoint = lambda done, message: None,
) -> list[MaskingPoint]:
    """Accuracy and size for several kept shares of the tail, at one pair of positions.

    For every seed the images are split again and the position is stitched once. Then the tail is localized for every
    share. So with one seed the localizers differ only in the channels they keep. Random channels are the control: the
    distance between a curve and the random curve is the effect of localization.

    Every point gets a head of the configured kind (`auto`: router) on globally pooled taps, as in the position search.
    The head search of a job would cost more than everything else. A joint head could also learn the cloned classes from
    the taps of a useless module, and hide the effect of the cut.

    Args:
        target: The frozen target in eval mode, and its spec.
        source: The frozen source in eval mode, and its spec.
        images: Labelled training images of old and cloned classes.
        config: Parameters; `position` is required. `keep`, `seed` and `epochs` are ignored: the arguments below replace
            them.
        test: Test images; by default the part of `images` that a job holds out.
        shares: Shares of the tail to keep, each above 0 and at most 1.
        localizers: Localizers to compare, each with `masking="scored"`; by default the configured one and the control.
        seeds: Seeds of split, masks and training.
        epochs: Epochs of feature matching after every cut. With 0 epochs the uncut module can be so inaccurate that
            cutting it changes little, and the curve is flat.
        step: Called after every point.

    Returns:
        One point for every seed, share and localizer, in this order.

    Raises:
        ConfigError: the configuration fixes no position, or a value is out of its range.
        DataError: images of a class are missing.
        PositionError: the position cannot be used.
    """
    if config.position is None:
        raise ConfigError("position: expected a fixed position, got none; take the one of a bundle's manifest")
    traced = trace(*target), trace(*source)
    localizers = localizers or tuple(dict.fromkeys((config.localizer, CONTROL)))
    total, points = len(seeds) * len(shares) * len(localizers), []
    for seed in seeds:
        job = prepare(*traced, images, replace(config, seed=seed), lambda progress: None, lambda: False)
        for point in _one_seed(job, config.position, test or job.validation, shares, localizers, epochs):
            points.append(point)
            step(len(points) / total, f"{point.localizer} {point.keep:.0%}: {point.average:.3f}")
    return points


def _one_seed(
    job: Job,
    position: Position,
    test: ImageSet,
    shares: Sequence[float],
    localizers: Sequence[Localizer],
    epochs: int,
) -> Iterable[MaskingPoint]:
    seen = test.only((*job.target.spec.classes, *job.config.classes))
    whole = stitch(job, position, job.train)
    for keep in shares:
        done: MaskingPoint | None = None
        for localizer in localizers:
            if done is None or keep < 1:  # with keep = 1 all localizers keep the same channels
                cut_job = replace(job, config=replace(job.config, keep=keep, localizer=localizer))
                insertion = localize(cut_job, copy.deepcopy(whole), bounded=False)
                match_features(cut_job, insertion, epochs, f"keep {keep}", lambda share, loss: None)
                done = _judged(cut_job, insertion, seen)
            yield replace(done, localizer=localizer)


def _judged(job: Job, insertion: Insertion, test: ImageSet) -> MaskingPoint:
    kind = "router" if job.config.head == "auto" else job.config.head
    (train,) = head_inputs(job, insertion, job.train, (1,), job.config.views)
    (seen,) = head_inputs(job, insertion, test, (1,), 0)
    head = fit_head(kind, train)
    found = judge(head_logits(head, seen), seen.old, seen.labels)
    numbers = (
        insertion.tail.parameter_count + insertion.trained_parameter_count + sum(p.numel() for p in head.parameters())
    )
    return MaskingPoint(
        keep=job.config.keep,
        localizer=job.config.localizer,
        seed=job.config.seed,
        old=found.old,
        new=found.new,
        average=found.average,
        locality=found.locality,
        own=_own_accuracy(job, seen),
        numbers=numbers,
        size=numbers / job.source.parameter_count,
    )


def _own_accuracy(job: Job, seen: HeadInputs) -> float:
    new = oracle(torch.cat([seen.old, seen.own], dim=1), seen.labels, job.old_classes).new
    return math.nan if new is None else new


@dataclass(frozen=True)
class PositionPoint:
    """Results of a search for one pair of positions."""

    target_position: str
    source_position: str
    screened: float | None
    """Joint accuracy without training; None if the job fixes the position."""
    trained: float | None
    """Joint accuracy after the position's last round of training; None if it was only screened."""
    screened_parameters: int | None
    """Numbers of the module, estimated by the screen; None if the job fixes the position."""
    parameters: int
    """Numbers of the module in the last round, without parallel adapters."""
    seconds: float
    """Seconds spent on the position in all rounds."""
    front: bool
    """On the Pareto front: no other position is at least as good in accuracy and size, and better in one of both."""
    winner: bool
    """The only position of the last round."""


def position_curve(trials: Iterable[Trial]) -> list[PositionPoint]:
    """Accuracy and size of every position that a job's search tried, in ascending order of size.

    The Pareto front compares the screen's accuracies, because trained positions had different numbers of rounds.
    Without a screen it compares the trained accuracies. The winner is the only position of the last round of training.
    The search decides by loss and size, so the winner need not have the highest accuracy. After a screen alone no
    position is the winner.

    Args:
        trials: Trials of one job, in any order.
    """
    by_position: dict[tuple[str, str], list[Trial]] = {}
    for trial in sorted(trials, key=lambda one: one.round):
        by_position.setdefault((trial.target_position, trial.source_position), []).append(trial)
    latest = max((rows[-1].round for rows in by_position.values()), default=0)
    last = [where for where, rows in by_position.items() if rows[-1].round == latest > 0]
    points = [_position_point(rows) for rows in by_position.values()]
    return sorted(
        (
            replace(p, front=_on_front(p, points), winner=last == [(p.target_position, p.source_position)])
            for p in points
        ),
        key=lambda p: (p.parameters, p.target_position, p.source_position),
    )


def _position_point(rows: list[Trial]) -> PositionPoint:
    first, last = rows[0], rows[-1]
    return PositionPoint(
        target_position=last.target_position,
        source_position=last.source_position,
        screened=None if first.round else first.score,
        trained=last.score if last.round else None,
        screened_parameters=None if first.round else first.parameters,
        parameters=last.parameters,
        seconds=sum(row.seconds for row in rows),
        front=False,
        winner=False,
    )


def _on_front(point: PositionPoint, points: list[PositionPoint]) -> bool:
    screened = any(p.screened is not None for p in points)

    def place(p: PositionPoint) -> tuple[float, int] | None:
        score, size = (p.screened, p.screened_parameters) if screened else (p.trained, p.parameters)
        return None if score is None or size is None else (score, size)

    own = place(point)
    others = [found for p in points if (found := place(p)) is not None]
    return own is not None and not any(
        (score >= own[0] and size < own[1]) or (score > own[0] and size <= own[1]) for score, size in others
    )
