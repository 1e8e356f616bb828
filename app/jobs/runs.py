"""Cloning jobs as workers see them: take one, report, end it. Every write is fenced by the lease."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from app.db import clock, leases
from app.db.clock import utc_now
from app.db.ids import new_id
from app.db.leases import Lease
from app.jobs import attempts, events, states, steps
from app.jobs.notifier import DEVICES, SIZES
from app.jobs.rules import size_of
from app.jobs.tables import JobRow, StepRow, TrialRow
from app.models import service as models
from app.models.service import Accuracy
from app.modules.tables import BundleRow, ModuleRow
from app.settings import MAX_ATTEMPTS
from app.store.objects import key_of
from pnc_core.config import CloneConfig
from pnc_core.errors import ConfigError, PncError
from pnc_core.module.manifest import build

Order = Literal["continue", "cancel", "pause"]
_ORDERS: dict[str, Order] = {"cancelling": "cancel", "pausing": "pause"}
_STOPPED = {"cancelling": "cancelled", "pausing": "paused"}
"""What a job that is asked to stop becomes."""
REST_SECONDS = 5
"""How long a job rests when its worker could not reach database, store or broker."""
STOP_SECONDS = 180
"""A job that was asked to stop this long ago is taken from its worker."""


def claim(
    session: Session,
    worker: str,
    seconds: int = 60,
    *,
    job_id: str | None = None,
    devices: Sequence[str] = DEVICES,
    sizes: Sequence[str] = SIZES,
) -> Lease | None:
    """Take a queued job, if there is one.

    Args:
        session: A writing session.
        worker: Name of the worker, unique among those alive.
        seconds: How long the lease lasts without a heartbeat.
        job_id: This one, not the oldest.
        devices: Only jobs for these.
        sizes: Only jobs of these.
    """
    settle(session)
    news = {"state": "running", "started_at": func.coalesce(JobRow.started_at, utc_now())}
    claimed = leases.claim(
        session, JobRow, _free(job_id, devices, sizes), worker, seconds, **news, asked_at=None, not_before=None
    )
    if claimed is None:
        return None
    lease, job = claimed
    attempts.begin(session, job, worker)
    events.emit(session, job, "state", f"taken by {worker}", {"worker": worker, "attempt": job.attempts + 1})
    return lease


def _free(job_id: str | None, devices: Sequence[str], sizes: Sequence[str]) -> ColumnElement[bool]:
    rested = or_(JobRow.not_before.is_(None), JobRow.not_before < utc_now())
    free = (JobRow.state == "queued") & JobRow.device.in_(devices) & JobRow.size.in_(sizes) & rested
    return free if job_id is None else free & (JobRow.id == job_id)


def heartbeat(session: Session, lease: Lease) -> Order:
    """Stay alive, with the steps that the same worker has taken of this job, and hear whether to go on.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    leases.renew(session, job, lease)
    session.execute(
        update(StepRow)
        .where(StepRow.job_id == job.id, StepRow.lease_worker == lease.worker)
        .values(lease_expires_at=job.lease_expires_at)
    )
    return _ORDERS.get(job.state, "continue")


def record(
    session: Session, lease: Lease, *, stage: str, message: str, progress: float, data: dict[str, Any] | None = None
) -> None:
    """Report progress.

    Args:
        session: A writing session.
        lease: Of the job.
        stage: What is going on, e.g. `localizing`.
        message: One line for people.
        progress: Share of the whole job that is done, 0 to 1.
        data: Details for programs.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.stage, job.progress = stage, min(max(progress, 0.0), 1.0)
    events.emit(session, job, "progress", message, data)


def record_trial(
    session: Session,
    lease: Lease,
    *,
    stage: str,
    progress: float,
    target_position: str,
    source_position: str,
    round: int,
    score: float,
    old: float | None = None,
    new: float | None = None,
    parameters: int | None = None,
    macs: int | None = None,
    seconds: float | None = None,
) -> None:
    """Report a position that was tried.

    Args:
        session: A writing session.
        lease: Of the job.
        stage: What is going on.
        progress: Share of the whole job that is done, 0 to 1.
        target_position: Where the target is read.
        source_position: Where the source is entered.
        round: 0 for the screen, then 1, 2, ... as the short list is halved.
        score: What positions are compared by; higher is better.
        old: Accuracy on held-out images of the target's classes, 0 to 1.
        new: Accuracy on those of the cloned classes, 0 to 1.
        parameters: Size of the module.
        macs: Multiply-accumulates that it adds to one image.
        seconds: How long the trial took.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.stage, job.progress = stage, min(max(progress, 0.0), 1.0)
    facts: dict[str, Any] = {
        "target_position": target_position,
        "source_position": source_position,
        "round": round,
        "score": score,
        "old": old,
        "new": new,
        "parameters": parameters,
        "macs": macs,
        "seconds": seconds,
    }
    session.add(TrialRow(id=new_id("trl"), job_id=job.id, attempt=job.attempts + 1, **facts))
    events.emit(session, job, "trial", f"{target_position} -> {source_position}: {score:.4g}", facts)


def succeed(
    session: Session,
    lease: Lease,
    *,
    manifest: dict[str, Any],
    bundles: Sequence[tuple[str, str, int]],
    evidence: dict[str, Any] | None = None,
    accuracies: Mapping[str, Accuracy] | None = None,
) -> ModuleRow:
    """Publish the module: its rows, the job's end and the last event in one transaction.

    Args:
        session: A writing session.
        lease: Of the job.
        manifest: What the bundle says about itself, as JSON.
        bundles: Payload, digest and bytes of each file, which are in the store already.
        evidence: What it is worth on the images that the job held out, if that is known.
        accuracies: What the job measured of its networks, by id of their versions.

    Raises:
        LeaseLost: another worker has the job now.
        InvalidTransition: the job was cancelled meanwhile; call `finish_cancel`.
    """
    job = leases.held(session, JobRow, lease)
    module = ModuleRow(
        id=new_id("mod"),
        workspace=job.workspace,
        job_id=job.id,
        target_version_id=job.target_version_id,
        source_version_id=job.source_version_id,
        target_fingerprint=manifest["target_fingerprint"],
        classes=list(manifest["classes"]),
        manifest=manifest,
        evidence=evidence or None,
        bundles=[BundleRow(payload=p, digest=d, bytes=b, key=key_of(d)) for p, d, b in bundles],
    )
    job.progress = 1.0
    _end(session, job, "succeeded", f"cloned {', '.join(module.classes)}", {"module": module.id})
    session.add(module)
    session.flush()
    for version_id, found in sorted((accuracies or {}).items()):  # in one order, so that two jobs never wait in a ring
        models.note_accuracy(session, version_id, found)
    return module


def fail(session: Session, lease: Lease, problem: dict[str, Any]) -> None:
    """End the job for good; `problem` has at least `code` and `detail`.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.problem = problem
    _end(session, job, "failed", str(problem["detail"]), problem, outcome=problem["code"])


def finish_cancel(session: Session, lease: Lease) -> None:
    """Say that the worker has stopped, as a cancel asked.

    Raises:
        LeaseLost: another worker has the job now.
        InvalidTransition: nobody asked.
    """
    _end(session, leases.held(session, JobRow, lease), "cancelled", "stopped as asked")


def finish_pause(session: Session, lease: Lease) -> None:
    """Say that the worker has stopped, as a pause asked; if it was withdrawn meanwhile, the job is queued again.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    if job.state == "pausing":
        _end(session, job, "paused", "stopped as asked; it goes on from its last checkpoint")
    else:
        release(session, lease)


def release(session: Session, lease: Lease) -> None:
    """Give the job back, because this worker is going away; no attempt is used.

    Raises:
        LeaseLost: another worker has the job now.
    """
    _give_back(session, leases.held(session, JobRow, lease), "given back by a worker that is shutting down")


def postpone(session: Session, lease: Lease, reason: str) -> None:
    """Give the job back for a while, because the worker could not reach what it needs; no attempt is used.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.not_before = clock.now(session) + timedelta(seconds=REST_SECONDS)
    _give_back(session, job, f"given back for {REST_SECONDS} s: {reason}")


def _give_back(session: Session, job: JobRow, message: str) -> None:
    stopped = _STOPPED.get(job.state)
    _end(session, job, stopped or "queued", "stopped as asked" if stopped else message, outcome=stopped or "released")


def crashed(
    session: Session, lease: Lease, reason: str, code: str = attempts.CRASHED, most: int = MAX_ATTEMPTS
) -> None:
    """The process that ran the job died; one attempt is used.

    Args:
        session: A writing session.
        lease: Of the job.
        reason: What is known of it, to follow "its process".
        code: One of those of `attempts`.
        most: So many without any headway fail the job.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    leases.count_attempt(job)
    _retry_or_fail(session, job, reason, code, most)


def sweep(session: Session, most: int = MAX_ATTEMPTS) -> int:
    """Take jobs back from dead workers; one that killed `most` of them fails. Returns how many."""
    rows = leases.take_back(session, JobRow)
    for job in rows:
        _retry_or_fail(session, job, "its worker fell silent", attempts.SILENT, most)
    _end_unheard(session)
    settle(session)
    return len(rows)


def _end_unheard(session: Session) -> None:
    """Take jobs from workers that keep them alive but do not stop when asked."""
    limit = clock.now(session) - timedelta(seconds=STOP_SECONDS)
    query = select(JobRow).where(JobRow.state.in_(_ORDERS), JobRow.asked_at < limit)
    for job in session.scalars(query.with_for_update(skip_locked=True, of=JobRow), execution_options=leases.FRESH):
        _end(session, job, _STOPPED[job.state], f"its worker did not stop within {STOP_SECONDS} s and has lost it")


def _retry_or_fail(session: Session, job: JobRow, reason: str, code: str, most: int) -> None:
    stopped = _STOPPED.get(job.state)
    job.fruitless += 1
    attempts.end(session, job, code, reason)
    if stopped:
        _move(session, job, stopped, f"{reason} while it was to be {stopped}")
    elif code == attempts.OUT_OF_MEMORY and attempts.count(session, job, code) > 1:
        job.problem = {"code": code, "detail": f"{_TOO_LARGE}; the last time {reason}"}
        _move(session, job, "failed", job.problem["detail"], job.problem)
    elif job.fruitless >= most:
        job.problem = {"code": "attempts_exhausted", "detail": f"{_GAVE_UP.format(most)}; the last time {reason}"}
        _move(session, job, "failed", job.problem["detail"], job.problem)
    else:
        if code == attempts.OUT_OF_MEMORY:
            job.size = "large"
        _move(session, job, "queued", f"{reason}; attempt {job.attempts + 1} follows")


def settle(session: Session) -> None:
    """Queue the jobs whose versions have become ready, and fail those with a rejected one."""
    query = select(JobRow).where(JobRow.state == "validating").with_for_update(skip_locked=True)
    for job in session.scalars(query, execution_options=leases.FRESH).all():
        versions = (job.target_version, job.source_version)
        rejected = next((v for v in versions if v.status == "rejected"), None)
        if rejected is not None:
            reason = (rejected.problem or {}).get("detail", "no reason was recorded")
            job.problem = {"code": "version_rejected", "detail": f"{rejected.ref} was rejected: {reason}"}
            _move(session, job, "failed", job.problem["detail"], job.problem)
        elif all(v.status == "ready" for v in versions):
            _queue(session, job)


def _queue(session: Session, job: JobRow) -> None:
    """Queue a job whose versions are ready; a row that cannot be understood fails by itself, and stops no other."""
    try:
        config = build(CloneConfig, job.config, job.id)
    except PncError as error:
        job.problem = {"code": ConfigError.code, "detail": f"{error}; submit it again"}
        _move(session, job, "failed", job.problem["detail"], job.problem)
    else:
        job.size = size_of(job.target_version, job.source_version, job.dataset, config)
        states.move(session, job, "queued", "both versions are ready")


def _end(
    session: Session,
    job: JobRow,
    state: str,
    message: str,
    data: dict[str, Any] | None = None,
    *,
    outcome: str | None = None,
) -> None:
    """End the claim, and perhaps the job."""
    attempts.end(session, job, outcome or state, message)
    _move(session, job, state, message, data)
    leases.drop(job)


def _move(session: Session, job: JobRow, state: str, message: str, data: dict[str, Any] | None = None) -> None:
    states.move(session, job, state, message, data)
    if state in states.TERMINAL:
        steps.forget(session, job.id)


_GAVE_UP = (
    "expected a worker to finish the job, got {} attempts that died without getting any further; "
    "is it too large for the workers' memory? Submit it again with a smaller batch_size"
)
_TOO_LARGE = (
    "expected the job to fit into a worker's memory, got two attempts that ran out of it; "
    "submit it again with a smaller batch_size, fewer views or fewer screen_images"
)
