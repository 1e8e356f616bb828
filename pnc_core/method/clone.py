"""`clone()`: the one door to the method. It reads like the method section.

References:
    Ye, Liu, Wang, "Partial Network Cloning", CVPR 2023, arXiv:2303.10597.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice

import torch
from torch import nn

from pnc_core.config import CloneConfig, NetworkSpec, Position, Precision
from pnc_core.devices import SlowPrecision, precision_of, slow_bfloat16
from pnc_core.errors import ConfigError, PositionError
from pnc_core.graph.cost import Cost
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.budget import head_kinds, limits
from pnc_core.method.checkpoints import Checkpoints, State
from pnc_core.method.fit_head import CHOICE_ROWS, FittedHead, HeadChoice, balanced_losses, choose_head, fit_head, shut
from pnc_core.method.insert import Insertion, head_inputs, last_taps, module_macs, tap_widths
from pnc_core.method.job import Job, Progress, Report, Watch, prepare, traced_step
from pnc_core.method.learn import insert, refine
from pnc_core.method.search import Trial, probe_of, screen
from pnc_core.method.trials import TrialRunner, halve
from pnc_core.method.watermark import Mark
from pnc_core.method.without_old_images import kind_without_old_images, without_old_images
from pnc_core.module.bundle import Bundle
from pnc_core.module.head import LAST, Head, TapWindow, head_cost, seen_width
from pnc_core.module.manifest import FORMAT, HeadSpec, Manifest, Sizes
from pnc_core.module.module import module_tensors

JOB = "job"
"""Among a job's steps: what it was asked."""
FAST_VIEWS = 2
"""Augmented views at most that the preset `fast` fits its head on."""
SEARCHED, REFINING, CALIBRATING = 0.4, 0.65, 0.85
"""How much of a job is done when a stage begins, for progress."""


@torch.enable_grad()
def clone(
    target: tuple[nn.Module, NetworkSpec],
    source: tuple[nn.Module, NetworkSpec],
    images: ImageSet,
    config: CloneConfig,
    *,
    report: Report = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoints: Checkpoints | None = None,
    watch: Watch = nullcontext,
    mark: Mark | None = None,
) -> Bundle:
    """Clone classes of a source into a module for a target.

    Neither network changes. Equal networks, images, parameters, marks and thread counts
    give equal bundles.

    Args:
        target: The network that will receive the module, in eval mode, and its spec.
        source: The network that has the classes, in eval mode, and its spec.
        images: Labelled images of old and cloned classes; others are ignored.
        config: What to clone and how.
        report: Called with every step's progress.
        cancelled: Asked between steps; True ends the job.
        checkpoints: What an interrupted run of the same job has kept: this one goes on there, to the same bundle.
        watch: Entered around `search`, `screening`, `trials`, `insertion`, `localization`, `adapter`, `refining` and
            `heads`, which lie within one another.
        mark: A key that has a say in which channels are kept; the bundle does not tell.

    Returns:
        A full bundle; `.thin()` gives the thin one.

    Raises:
        ConfigError: classes or parameters make no sense, or the checkpoints are another job's, or a marked one's.
        DataError: images are missing.
        NetworkError: a network is in train mode or cannot be traced.
        PositionError: no position can be used.
        Cancelled: `cancelled` answered True.
    """
    if mark is not None and checkpoints is not None:
        raise ConfigError("mark: expected no checkpoints beside it, got both; leave one of them out")
    traced = trace(*target), trace(*source)
    _warn_of_slow_precision(config, traced[0].device, report)
    config = replace(config, precision=_precision(config, traced[0].device, checkpoints))
    job = prepare(*traced, images, config, report, cancelled, checkpoints)
    job = replace(job, watch=watch, mark=mark)
    if not config.old_images:
        kind_without_old_images(job)  # refused before the search, not after it
    prints = fingerprint(target[0]), fingerprint(source[0])
    if checkpoints is not None:
        _recognise(checkpoints, config, prints, images)
    position, rounds = _search(job)
    begun = time.monotonic()
    insertion = _insert(job, position)
    if config.refine and config.preset == "joint" and config.old_images:
        insertion = _refined(job, insertion)
    fitted = calibrate(job, insertion)
    _report_winner(job, insertion, fitted, rounds + 1, time.monotonic() - begun)
    report(Progress("calibrating", 1.0, f"{fitted.head.kind} head: joint accuracy {fitted.score.average:.3f}"))
    manifest = _manifest(job, insertion, fitted, *prints)
    return Bundle(manifest, module_tensors(insertion.adapter, insertion.tail, fitted.head))


def _precision(config: CloneConfig, device: torch.device, checkpoints: Checkpoints | None) -> Precision:
    """What `auto` means; for all processes that work on a job it is what the first one of them took it for."""
    known = checkpoints.load(JOB) if checkpoints is not None and config.precision == "auto" else None
    if known is not None:
        chosen: Precision = known.facts["config"]["precision"]
        return chosen
    return precision_of(config.precision, device)


def _warn_of_slow_precision(config: CloneConfig, device: torch.device, report: Report) -> None:
    slow = slow_bfloat16(config.precision, device)
    if slow is not None:
        warnings.warn(slow, SlowPrecision, stacklevel=4)
        report(Progress("screening", 0.0, slow))


def _recognise(checkpoints: Checkpoints, config: CloneConfig, prints: tuple[str, str], images: ImageSet) -> None:
    """Refuse to go on with what another job has kept."""
    pixels, labels = (hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in (images.images, images.labels))
    own = {"config": asdict(config), "networks": prints, "images": pixels, "labels": labels}
    if images.fitted:
        own["fitted"] = [hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in images.fitted.values()]
    own = json.loads(json.dumps(own))
    known = checkpoints.load(JOB)
    if known is None:
        checkpoints.save(JOB, State(own))
        return
    other = [name for name, value in own.items() if known.facts.get(name) != value]
    if other:
        raise ConfigError(
            f"checkpoints: expected those of this very job, got some that were kept with other {', '.join(other)}; "
            "give every job a place of its own"
        )


@torch.enable_grad()
def work_out(
    target: tuple[nn.Module, NetworkSpec],
    source: tuple[nn.Module, NetworkSpec],
    images: ImageSet,
    config: CloneConfig,
    step: str,
    *,
    checkpoints: Checkpoints,
    cancelled: Callable[[], bool] = lambda: False,
    watch: Watch = nullcontext,
) -> State:
    """One step of a job that another process runs: `Checkpoints.each` has named it.

    Args:
        target: As for `clone`.
        source: As for `clone`.
        images: As for `clone`.
        config: As for `clone`.
        step: A step's text.
        checkpoints: Where the job's earlier steps are.
        cancelled: Asked between batches; True ends the work.
        watch: As for `clone`.

    Raises:
        Cancelled: `cancelled` answered True.
    """
    traced = trace(*target), trace(*source)
    config = replace(config, precision=_precision(config, traced[0].device, checkpoints))
    job = prepare(*traced, images, config, lambda progress: None, cancelled, checkpoints)
    return TrialRunner(replace(job, watch=watch)).work([step])[0]


@traced_step("search")
def _search(job: Job) -> tuple[Position, int]:
    """The best pair of positions, and how many rounds of trials found it (0 if it was given).

    Raises:
        PositionError: no pair can be used.
    """
    if job.config.position is not None:
        return job.config.position, 0
    return halve(job, screen(job)[: job.config.shortlist])


def _report_winner(job: Job, insertion: Insertion, fitted: FittedHead, number: int, seconds: float) -> None:
    where, score = insertion.position, fitted.score
    macs = module_macs(job, insertion)
    trial = Trial(
        where.target,
        where.source,
        number,
        score.old,
        score.new,
        score.average,
        insertion.parameter_count,
        macs,
        seconds,
    )
    message = f"{where}: joint accuracy {score.average:.3f}"
    job.report(Progress("calibrating", 0.99, message, {"trial": asdict(trial)}))


@traced_step("insertion")
def _insert(job: Job, position: Position) -> Insertion:
    begin, span = SEARCHED, REFINING - SEARCHED

    def step(share: float, loss: float) -> None:
        job.report(Progress("inserting", begin + span * share, f"{position}: feature mismatch {loss:.3f}"))

    return insert(job, position, probe_of(job), step)


@traced_step("refining")
def _refined(job: Job, insertion: Insertion) -> Insertion:
    """Learn the labels, too, and keep what was learned only if held-out images are better off."""

    def step(share: float, loss: float) -> None:
        job.report(Progress("refining", REFINING + (CALIBRATING - REFINING) * share, f"labels: loss {loss:.3f}"))

    grid = job.config.tap_grid
    head, before = plain_head(job, insertion, grid)
    learned = refine(job, insertion, head, grid, step)
    _, after = plain_head(job, learned, grid)
    verdict = f"held-out loss {before:.4f} before, {after:.4f} after: {'kept' if after < before else 'dropped'}"
    job.report(Progress("refining", CALIBRATING, verdict))
    return learned if after < before else insertion


def plain_head(job: Job, insertion: Insertion, grid: int) -> tuple[Head, float]:
    """A quick head to refine with, and its balanced cross-entropy on held-out images: before and after alike."""
    kind = "joint" if job.config.head in ("auto", "joint") and job.config.locality == "soft" else "router"
    train, held = (head_inputs(job, insertion, i, [grid], 1)[0] for i in (job.train, job.validation))
    head = fit_head(kind, train.some(CHOICE_ROWS))
    return head, float(balanced_losses(head, held).mean())


@traced_step("heads")
def calibrate(job: Job, insertion: Insertion) -> FittedHead:
    """Fit the heads on cached logits and taps, and choose one on the held-out images."""
    config = job.config
    job.report(Progress("calibrating", CALIBRATING, "fitting heads on the taps"))
    fast = config.preset == "fast"
    grids = [1] if fast or not config.old_images else sorted({1, config.tap_grid})
    views = min(config.views, FAST_VIEWS) if fast else config.views
    train = head_inputs(job, insertion, job.train, grids, views)
    validation = head_inputs(job, insertion, job.validation, grids, views)
    if not config.old_images:
        return without_old_images(job, train[0], validation[0])
    rows = list(zip(grids, train, validation, strict=True))
    # The affine head reads no taps, so that one grid is enough for it.
    locality_gates = {grid: seen_width(job.target, grid) if config.locality == "strict" else 0 for grid in grids}
    choices = [
        HeadChoice(kind, *row, locality_gate=locality_gates[row[0]])
        for kind in head_kinds(job)
        for row in (rows[:1] if kind == "affine" else rows)
    ]
    if "joint" in head_kinds(job):
        shortened = partial(last_taps, job, insertion)
        choices += [
            HeadChoice("joint", g, shortened(t, g, tap_window), shortened(v, g, tap_window), tap_window=tap_window)
            for g, t, v in rows
            for tap_window in _tap_windows(job, insertion, g)
        ]
    fitted = choose_head(_fitting(job, insertion, choices))
    if config.locality == "soft":
        return fitted
    kept = next(choice for choice in choices if choice.grid == fitted.grid)
    return shut(fitted, kept.train, kept.validation, kept.locality_gate)


def _room(job: Job, insertion: Insertion) -> tuple[Cost, Cost]:
    """What a module takes without its head, and what it may take with it."""
    return Cost(insertion.parameter_count, module_macs(job, insertion)), limits(job)


def _tap_windows(job: Job, insertion: Insertion, grid: int) -> list[TapWindow]:
    """The last tap of either side; where all are too many, also as many of the target's as fit with the module's last.

    The target's are worth more than the module's: the fewer channels are left the less the module's earlier taps say.
    """
    spent, most = _room(job, insertion)
    seen, made = tap_widths(job, insertion, grid)

    def fits(*widths: int) -> bool:
        return (spent + head_cost("joint", sum(widths), job.old_classes, len(job.cloned))).within(most)

    if fits(*seen, *made):
        return [LAST]
    longer = (count for count in range(len(seen), 1, -1) if fits(*seen[-count:], *made[-1:]))
    return [LAST, *(TapWindow(count, 1) for count in islice(longer, 1))]


def _fitting(job: Job, insertion: Insertion, choices: list[HeadChoice]) -> list[HeadChoice]:
    """The heads with which the whole module is within its bounds: the mask has left room for one at least."""
    spent, most = _room(job, insertion)
    fitting = [choice for choice in choices if (spent + choice.cost).within(most)]
    if not fitting:
        raise PositionError(
            f"position {insertion.position}: expected a module of at most {most.parameter_count:,} numbers with its "
            f"head, got {spent.parameter_count:,} without; raise max_size, or lower keep"
        )
    return fitting


def _manifest(
    job: Job, insertion: Insertion, fitted: FittedHead, target_fingerprint: str, source_fingerprint: str
) -> Manifest:
    tail, head, score = insertion.tail, fitted.head, fitted.score
    tap_window = fitted.tap_window or TapWindow(len(job.target.positions), len(tail.taps))
    head_numbers = sum(t.numel() for t in head.state_dict().values())
    return Manifest(
        format=FORMAT,
        payload="full",
        classes=job.config.classes,
        target=job.target.spec,
        target_fingerprint=target_fingerprint,
        source=job.source.spec,
        source_fingerprint=source_fingerprint,
        position=insertion.position,
        adapter_relu=insertion.adapter.relu,
        adapter_resize=insertion.adapter.resize,
        inner=tuple(tail.inner),
        kept_fraction=round(tail.parameter_count / insertion.whole, 6),
        head=HeadSpec(
            kind=head.kind,  # type: ignore[arg-type]
            grid=fitted.grid,
            target_taps=tuple(p.name for p in job.target.taps[-tap_window.target :]),
            module_taps=tail.taps[-tap_window.module :],
            strict=head.strict,
        ),
        sizes=Sizes(
            source=job.source.parameter_count,
            module=tail.parameter_count,
            adapter=insertion.trained_parameter_count,
            head=head_numbers,
        ),
        validation={
            name: round(value, 6)
            for name, value in (("old", score.old), ("new", score.new), ("average", score.average))
            if value is not None
        },
        config=job.config,
        created_by=_software(),
    )


def _software() -> str:
    try:
        return f"pnc-zoo {version('pnc-zoo')}"
    except PackageNotFoundError:
        return "pnc-zoo (not installed)"
