"""Execution of cloning jobs by workers: claim, heartbeat, reports and ends. Every write checks the worker's lease."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, or_, update
from sqlalchemy.orm import Session

from app.db import clock, leases
from app.db.clock import utc_now
from app.db.ids import new_id
from app.db.leases import Lease
from app.jobs import attempts, events, recovery, states
from app.jobs.notifier import DEVICES, SIZES
from app.jobs.tables import JobRow, StepRow, TrialRow
from app.models import service as models
from app.models.service import Accuracy
from app.modules.tables import BundleRow, ModuleRow
from app.store.objects import key_of

Order = Literal["continue", "cancel", "pause"]
_ORDERS: dict[str, Order] = {"cancelling": "cancel", "pausing": "pause"}
REST_SECONDS = 5
"""Delay before a job can be claimed again if its worker could not reach the database, the store or the broker."""


def claim(
    session: Session,
    worker: str,
    seconds: int = 60,
    *,
    job_id: str | None = None,
    devices: Sequence[str] = DEVICES,
    sizes: Sequence[str] = SIZES,
) -> Lease | None:
    """Claim a queued job, if there is one.

    Args:
        session: A writing session.
        worker: Name of the worker, unique among running workers.
        seconds: Duration of the lease without a heartbeat.
        job_id: Claim only this job; None: the oldest one.
        devices: Claim only jobs for these devices.
        sizes: Claim only jobs of these sizes.
    """
    recovery.settle(session)
    news = {"state": "running", "started_at": func.coalesce(JobRow.started_at, utc_now())}
    claimed = leases.claim(
        session, JobRow, _free(job_id, devices, sizes), worker, seconds, **news, asked_at=None, not_before=None
    )
    if claimed is None:
        return None
    lease, job = claimed
    attempts.begin(session, job, worker)
    events.emit(session, job, "state", f"claimed by {worker}", {"worker": worker, "attempt": job.attempts + 1})
    return lease


def _free(job_id: str | None, devices: Sequence[str], sizes: Sequence[str]) -> ColumnElement[bool]:
    rested = or_(JobRow.not_before.is_(None), JobRow.not_before < utc_now())
    free = (JobRow.state == "queued") & JobRow.device.in_(devices) & JobRow.size.in_(sizes) & rested
    return free if job_id is None else free & (JobRow.id == job_id)


def heartbeat(session: Session, lease: Lease) -> Order:
    """Renew the lease of a job, and of the steps that the same worker has claimed from it.

    Returns:
        Whether the worker must continue, cancel or pause.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.renew(session, JobRow, lease)
    session.execute(
        update(StepRow)
        .where(StepRow.job_id == job.id, StepRow.lease_worker == lease.worker)
        .values(lease_expires_at=job.lease_expires_at)
    )
    return _ORDERS.get(job.state, "continue")


def record(
    session: Session, lease: Lease, *, stage: str, message: str, progress: float, data: dict[str, Any] | None = None
) -> None:
    """Record progress.

    Args:
        session: A writing session.
        lease: Lease of the job.
        stage: Name of the current stage, e.g. `localizing`.
        message: Description in one line, for people.
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
    """Record the trial of a position.

    Args:
        session: A writing session.
        lease: Lease of the job.
        stage: Name of the current stage.
        progress: Share of the whole job that is done, 0 to 1.
        target_position: Layer of the target whose output the module reads.
        source_position: Position in the source at which the cloned layers begin.
        round: 0 for the screening, then 1, 2, ... for each halving of the shortlist.
        score: Score of the position; higher is better.
        old: Accuracy on held-out images of the target's classes, 0 to 1.
        new: Accuracy on held-out images of the cloned classes, 0 to 1.
        parameters: Number of the module's parameters.
        macs: Multiply-accumulates that the module adds to one image.
        seconds: Duration of the trial.

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
    """Publish the module, end the job and write its last event, in one transaction.

    Args:
        session: A writing session.
        lease: Lease of the job.
        manifest: The bundle's manifest, as JSON.
        bundles: Payload, digest and size in bytes of each bundle; the files must be in the store already.
        evidence: Measurements of the module on held-out images, if there are any.
        accuracies: Accuracies of the target and the source that the job measured, by version id.

    Raises:
        LeaseLost: another worker has the job now.
        InvalidTransition: a cancellation was requested; call `finish_cancel` instead.
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
    states.end_claim(session, job, "succeeded", f"cloned {', '.join(module.classes)}", {"module": module.id})
    session.add(module)
    session.flush()
    for version_id, found in sorted((accuracies or {}).items()):  # all jobs lock versions in this order: no deadlock
        models.note_accuracy(session, version_id, found)
    return module


def fail(session: Session, lease: Lease, problem: dict[str, Any]) -> None:
    """End the job as failed; `problem` must have `code` and `detail`.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.problem = problem
    states.end_claim(session, job, "failed", str(problem["detail"]), problem, outcome=problem["code"])


def finish_cancel(session: Session, lease: Lease) -> None:
    """Record that the worker has stopped after a request to cancel.

    Raises:
        LeaseLost: another worker has the job now.
        InvalidTransition: nobody requested a cancellation.
    """
    states.end_claim(session, leases.held(session, JobRow, lease), "cancelled", "stopped as requested")


def finish_pause(session: Session, lease: Lease) -> None:
    """Record that the worker has stopped after a request to pause; if the request was withdrawn, queue the job again.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    if job.state == "pausing":
        states.end_claim(
            session, job, "paused", "stopped as requested; a resumed job continues from its last checkpoint"
        )
    else:
        release(session, lease)


def release(session: Session, lease: Lease) -> None:
    """Queue the job again because this worker is shutting down. This does not count as a failed attempt.

    Raises:
        LeaseLost: another worker has the job now.
    """
    _give_back(session, leases.held(session, JobRow, lease), "queued again: its worker is shutting down")


def postpone(session: Session, lease: Lease, reason: str, seconds: int = REST_SECONDS) -> None:
    """Queue the job again after some seconds, because the worker could not reach a service, or lacks free memory.

    This does not count as a failed attempt.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.not_before = clock.now(session) + timedelta(seconds=seconds)
    _give_back(session, job, f"queued again after {seconds} s: {reason}")


def _give_back(session: Session, job: JobRow, message: str) -> None:
    stopped = states.STOPPED.get(job.state)
    message = "stopped as requested" if stopped else message
    states.end_claim(session, job, stopped or "queued", message, outcome=stopped or "released")
