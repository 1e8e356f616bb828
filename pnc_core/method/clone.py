"""`clone()`: the entry point of the method, in the order of its stages.

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
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

from pnc_core.config import CloneConfig, NetworkSpec, Position, Precision
from pnc_core.devices import SlowPrecision, precision_of, slow_bfloat16
from pnc_core.errors import ConfigError, DataError, PositionError, WorseThanNone
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.checkpoints import Checkpoints, State
from pnc_core.method.heads.calibrate import Calibrated, calibrate, falls_behind, plain_head, read
from pnc_core.method.heads.choose import FittedHead
from pnc_core.method.heads.inputs import Outputs
from pnc_core.method.heads.without_old_images import kind_without_old_images
from pnc_core.method.insert import Insertion, module_macs, whole_source
from pnc_core.method.job import Job, Progress, Report, Watch, prepare, traced_step
from pnc_core.method.learn import insert, refine
from pnc_core.method.need import (
    NO_SPLIT,
    WHOLE_INSTEAD,
    grown,
    is_enough,
    is_refused,
    judged_facts,
    needs_whole,
    refusal,
)
from pnc_core.method.reconstruct import LogitsFit
from pnc_core.method.search import probe_of, screen, shortlisted, trial_of
from pnc_core.method.trials import TrialRunner, halve
from pnc_core.module.bundle import Bundle
from pnc_core.module.head import TapWindow
from pnc_core.module.manifest import FORMAT, HeadSpec, Manifest, Sizes
from pnc_core.module.module import module_tensors
from pnc_core.module.verdict import rounded
from pnc_core.module.watermark import Mark

JOB = "job"
"""Name of the checkpoint that holds the job's inputs: parameters and digests of networks and images."""
SEARCHED, REFINING, CALIBRATING = 0.4, 0.65, 0.85
"""Progress of a job, 0..1, after the search and at the start of refining and of calibrating."""


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

    Neither network changes. Equal networks, images, parameters, watermarks and thread counts
    give equal bundles.

    Args:
        target: The network that will receive the module, in eval mode, and its spec.
        source: The network that has the classes, in eval mode, and its spec.
        images: Labelled images of old and cloned classes; others are ignored.
        config: Parameters of the job.
        report: Called with the progress of every step.
        cancelled: Called between steps; True stops the job.
        checkpoints: Saved states of an interrupted run of the same job. The job continues from them and makes the same
            bundle.
        watch: Makes a context manager that is entered around each of `search`, `screening`, `trials`, `insertion`,
            `localization`, `adapter`, `refining` and `heads`. These pieces are nested.
        mark: Watermark key. It influences the choice of channels; the bundle does not contain it.

    Returns:
        A full bundle; `.thin()` gives the thin one.

    Raises:
        ConfigError: a class or parameter is invalid, the checkpoints belong to another job, or `mark` and `checkpoints`
            are both given.
        DataError: images are missing.
        NetworkError: a network is in train mode or cannot be traced.
        PositionError: no position can be used.
        WorseThanNone: the module is worse than an answer that needs no module, and `keep_anyway` is not set.
        Cancelled: `cancelled` returned True.
    """
    if mark is not None and checkpoints is not None:
        raise ConfigError("mark: expected no checkpoints beside a mark, got both; leave one of them out")
    traced = trace(*target), trace(*source)
    _warn_of_slow_precision(config, traced[0].device, report)
    config = replace(config, precision=_precision(config, traced[0].device, checkpoints))
    job = prepare(*traced, images, config, report, cancelled, checkpoints)
    job = replace(job, watch=watch, mark=mark)
    if not config.old_images:
        kind_without_old_images(job)  # an impossible head fails here, before the search
    prints = fingerprint(target[0]), fingerprint(source[0])
    if checkpoints is not None:
        _check_same_job(checkpoints, config, prints, images)
    insertion, calibrated, winner = _module(job)
    _report_winner(job, insertion, calibrated.fitted, *winner)
    verdict, fitted = calibrated.verdict, calibrated.fitted
    worth = verdict.text if verdict else f"joint accuracy {fitted.score.average:.3f}"
    report(Progress("calibrating", 1.0, f"{fitted.head.kind} head: {worth}", {"judged": judged_facts(job, calibrated)}))
    if verdict is not None and is_refused(verdict, job.config):
        raise WorseThanNone(refusal(verdict, job.config))
    manifest = _manifest(job, insertion, calibrated, *prints)
    return Bundle(manifest, module_tensors(insertion.adapter, insertion.tail, fitted.head))


def _precision(config: CloneConfig, device: torch.device, checkpoints: Checkpoints | None) -> Precision:
    """The precision that `auto` stands for. All processes of a job use the first process's choice."""
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


def _check_same_job(checkpoints: Checkpoints, config: CloneConfig, prints: tuple[str, str], images: ImageSet) -> None:
    """Save the job's inputs, or compare them with the saved ones.

    Raises:
        ConfigError: the checkpoints belong to another job.
    """
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
            f"checkpoints: expected the checkpoints of this job, got checkpoints of a job with other "
            f"{', '.join(other)}; give every job its own folder"
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
    """Run one step of a job on behalf of another process; `Checkpoints.each` gives the step's name.

    Args:
        target: As for `clone`.
        source: As for `clone`.
        images: As for `clone`.
        config: As for `clone`.
        step: Name of the step.
        checkpoints: Storage with the states of the job's earlier steps.
        cancelled: Called between batches; True stops the step.
        watch: As for `clone`.

    Raises:
        Cancelled: `cancelled` returned True.
    """
    traced = trace(*target), trace(*source)
    config = replace(config, precision=_precision(config, traced[0].device, checkpoints))
    job = prepare(*traced, images, config, lambda progress: None, cancelled, checkpoints)
    return TrialRunner(replace(job, watch=watch)).work([step])[0]


Winner = tuple[int, float]
"""Number of the round of the last trial, and its seconds."""
Module = tuple[Insertion, Calibrated, Winner]


def _module(job: Job) -> Module:
    """The module, and its head: a cut tail if the images show that it is good enough, else the whole source.

    Raises:
        DataError: images of a class are missing, and the whole source cannot be used.
        PositionError: no pair can be used.
    """
    whole = whole_source(job) if job.config.may_grow else None
    seen = None
    if whole is None or not needs_whole(job):
        try:
            cut_down, seen = _cut_down(job, whole)
        except PositionError:
            if whole is None:
                raise
        else:
            if cut_down is not None:
                return cut_down
            job.report(Progress("calibrating", CALIBRATING, WHOLE_INSTEAD))
    assert whole is not None
    begun, job = time.monotonic(), grown(job)
    return _calibrated(job, whole, seen or read(job, [whole])[0], 1, begun)


def _cut_down(job: Job, whole: Insertion | None) -> tuple[Module | None, Outputs | None]:
    """A cut tail and its head, and the whole source's outputs.

    The first is None if the images do not show that a cut tail is good enough. An economical job compares the two
    before it reads views of the images for the cut tail's heads.
    """
    if not job.is_split:
        raise DataError(NO_SPLIT)
    position, rounds = _search(job)
    begun = time.monotonic()
    insertion = _insert(job, position)
    if job.config.refine and job.config.preset == "joint" and job.config.old_images:
        insertion = _refined(job, insertion)
    job.report(Progress("calibrating", CALIBRATING, "running both networks and the module over all images"))
    insertion, outputs, of_whole = _read(job, insertion, whole)
    if whole is None or of_whole is None:
        return _calibrated(job, insertion, outputs, rounds + 1, begun), None
    if job.is_economical:
        quiet = replace(job, report=lambda progress: None)  # `_calibrated` says the same again
        if not _may_stay(job, calibrate(quiet, insertion, outputs, 0), (whole, of_whole)):
            return None, of_whole
    found = _calibrated(job, insertion, outputs, rounds + 1, begun)
    return found if _may_stay(job, found[1], (whole, of_whole)) else None, of_whole


def _read(job: Job, insertion: Insertion, whole: Insertion | None) -> tuple[Insertion, Outputs, Outputs | None]:
    """Outputs for all images of a cut tail, and of the whole source if there is one.

    In an economical job these outputs also reconstruct the logits, so the first value is the reconstructed insertion.
    """
    wholes = [] if whole is None else [whole]
    if not (job.is_economical and job.config.reconstructs):
        own, *others = read(job, [insertion, *wholes])
        return insertion, own, others[0] if others else None
    assert job.held is not None
    with LogitsFit(insertion) as fit:
        own, *others = read(job, [fit.insertion, *wholes])
    logits = fit.fitted(own.own, own.every[:, list(job.cloned)], ~job.held)
    return fit.insertion, own.with_own(logits), others[0] if others else None


def _may_stay(job: Job, cut: Calibrated, whole: tuple[Insertion, Outputs]) -> bool:
    """Whether the images show that a cut tail is good enough beside its alternatives and the whole source."""
    return is_enough(cut.verdict) and not falls_behind(job, cut.logits, whole)


def _calibrated(job: Job, insertion: Insertion, outputs: Outputs, number: int, begun: float) -> Module:
    job.report(Progress("calibrating", CALIBRATING, "fitting heads on the taps"))
    calibrated = calibrate(job, insertion, outputs)
    return insertion, calibrated, (number, time.monotonic() - begun)


@traced_step("search")
def _search(job: Job) -> tuple[Position, int]:
    """The best pair of positions, and the number of rounds of trials (0 if the job fixes the pair).

    Raises:
        PositionError: no pair can be used.
    """
    if job.config.position is not None:
        return job.config.position, 0
    return halve(job, shortlisted(job, screen(job)))


def _report_winner(job: Job, insertion: Insertion, fitted: FittedHead, number: int, seconds: float) -> None:
    position, score = insertion.position, fitted.score
    macs = module_macs(job, insertion)
    trial = trial_of(position, number, score, insertion.parameter_count, macs, seconds)
    message = f"{position}: joint accuracy {score.average:.3f}"
    job.report(Progress("calibrating", 0.99, message, {"trial": asdict(trial)}))


@traced_step("insertion")
def _insert(job: Job, position: Position) -> Insertion:
    begin, span = SEARCHED, REFINING - SEARCHED

    def step(share: float, loss: float) -> None:
        job.report(Progress("inserting", begin + span * share, f"{position}: feature mismatch {loss:.3f}"))

    return insert(job, position, probe_of(job), step)


@traced_step("refining")
def _refined(job: Job, insertion: Insertion) -> Insertion:
    """Train on labels, and keep the result only if the loss on held-out images falls."""

    def step(share: float, loss: float) -> None:
        job.report(Progress("refining", REFINING + (CALIBRATING - REFINING) * share, f"labels: loss {loss:.3f}"))

    grid = job.config.tap_grid
    head, before = plain_head(job, insertion, grid)
    learned = refine(job, insertion, head, grid, step)
    _, after = plain_head(job, learned, grid)
    verdict = f"held-out loss {before:.4f} before, {after:.4f} after: {'kept' if after < before else 'dropped'}"
    job.report(Progress("refining", CALIBRATING, verdict))
    return learned if after < before else insertion


def _manifest(
    job: Job, insertion: Insertion, calibrated: Calibrated, target_fingerprint: str, source_fingerprint: str
) -> Manifest:
    fitted, verdict = calibrated.fitted, calibrated.verdict
    tail, head, score = insertion.tail, fitted.head, fitted.score if verdict is None else verdict.figures["module"]
    tap_window = fitted.tap_window or TapWindow(len(job.target.positions), len(tail.taps))
    head_numbers = sum(t.numel() for t in head.state_dict().values())
    return Manifest(
        format=FORMAT,
        payload="full",
        classes=job.config.classes,
        target=replace(job.target.spec, class_aliases={}),
        target_fingerprint=target_fingerprint,
        source=replace(job.source.spec, class_aliases={}),
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
            odds=insertion.odds,
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
        verdict=None if verdict is None else rounded(verdict),
    )


def _software() -> str:
    try:
        return f"pnc-zoo {version('pnc-zoo')}"
    except PackageNotFoundError:
        return "pnc-zoo (not installed)"
