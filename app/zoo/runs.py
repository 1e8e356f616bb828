"""Cloning jobs as workers see them: take one, report, end it. Every write is fenced by the lease."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.zoo import clock, events, leases, states
from app.zoo.ids import new_id
from app.zoo.leases import Lease
from app.zoo.store import key_of
from app.zoo.tables import BundleRow, JobRow, ModuleRow, TrialRow

Order = Literal["continue", "cancel"]


def claim(session: Session, worker: str, seconds: int = 60) -> Lease | None:
    """Take the oldest queued job, if there is one.

    Args:
        session: A writing session.
        worker: Name of the worker, unique among those alive.
        seconds: How long the lease lasts without a heartbeat.
    """
    settle(session)
    lease = leases.claim(session, JobRow, JobRow.state == "queued", worker, seconds, state="running")
    if lease is None:
        return None
    job = leases.held(session, JobRow, lease)
    job.started_at = job.started_at or clock.now(session)
    events.emit(session, job, "state", f"taken by {worker}", {"worker": worker, "attempt": job.attempts + 1})
    return lease


def heartbeat(session: Session, lease: Lease) -> Order:
    """Stay alive and hear whether to go on.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    leases.renew(session, job, lease)
    return "cancel" if job.state == "cancelling" else "continue"


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
    session: Session, lease: Lease, *, manifest: dict[str, Any], bundles: Sequence[tuple[str, str, int]]
) -> ModuleRow:
    """Publish the module: its rows, the job's end and the last event in one transaction.

    Args:
        session: A writing session.
        lease: Of the job.
        manifest: What the bundle says about itself, as JSON.
        bundles: Payload, digest and bytes of each file, which are in the store already.

    Raises:
        LeaseLost: another worker has the job now.
        InvalidTransition: the job was cancelled meanwhile; call `finish_cancel`.
    """
    job = leases.held(session, JobRow, lease)
    module = ModuleRow(
        id=new_id("mod"),
        job_id=job.id,
        target_version_id=job.target_version_id,
        source_version_id=job.source_version_id,
        target_fingerprint=manifest["target_fingerprint"],
        classes=list(manifest["classes"]),
        manifest=manifest,
        bundles=[BundleRow(payload=p, digest=d, bytes=b, key=key_of(d)) for p, d, b in bundles],
    )
    job.progress = 1.0
    _end(session, job, "succeeded", f"cloned {', '.join(module.classes)}", {"module": module.id})
    session.add(module)
    session.flush()
    return module


def fail(session: Session, lease: Lease, problem: dict[str, Any]) -> None:
    """End the job for good; `problem` has at least `code` and `detail`.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.problem = problem
    _end(session, job, "failed", str(problem["detail"]), problem)


def finish_cancel(session: Session, lease: Lease) -> None:
    """Say that the worker has stopped, as a cancel asked.

    Raises:
        LeaseLost: another worker has the job now.
        InvalidTransition: nobody asked.
    """
    _end(session, leases.held(session, JobRow, lease), "cancelled", "stopped as asked")


def release(session: Session, lease: Lease) -> None:
    """Give the job back, because this worker is going away; no attempt is used.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    if job.state == "cancelling":
        _end(session, job, "cancelled", "stopped as asked")
    else:
        _end(session, job, "queued", "given back by a worker that is shutting down")


def crashed(session: Session, lease: Lease, reason: str) -> None:
    """The process that ran the job died; one attempt is used.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    leases.count_attempt(job)
    _retry_or_fail(session, job, reason)


def sweep(session: Session) -> int:
    """Take jobs back from dead workers; one that killed several fails. Returns how many."""
    rows = leases.take_back(session, JobRow)
    for job in rows:
        _retry_or_fail(session, job, "its worker fell silent")
    settle(session)
    return len(rows)


def _retry_or_fail(session: Session, job: JobRow, reason: str) -> None:
    if job.state == "cancelling":
        states.move(session, job, "cancelled", f"{reason} while it was being cancelled")
    elif job.attempts >= leases.MAX_ATTEMPTS:
        job.problem = {"code": "attempts_exhausted", "detail": f"{_GAVE_UP}; the last time {reason}"}
        states.move(session, job, "failed", job.problem["detail"], job.problem)
    else:
        states.move(session, job, "queued", f"{reason}; attempt {job.attempts + 1} follows")


def settle(session: Session) -> None:
    """Queue the jobs whose versions have become ready, and fail those with a rejected one."""
    query = select(JobRow).where(JobRow.state == "validating").with_for_update(skip_locked=True)
    for job in session.scalars(query, execution_options=leases.FRESH).all():
        versions = (job.target_version, job.source_version)
        rejected = next((v for v in versions if v.status == "rejected"), None)
        if rejected is not None:
            reason = (rejected.problem or {}).get("detail", "no reason was recorded")
            job.problem = {"code": "version_rejected", "detail": f"{rejected.ref} was rejected: {reason}"}
            states.move(session, job, "failed", job.problem["detail"], job.problem)
        elif all(v.status == "ready" for v in versions):
            states.move(session, job, "queued", "both versions are ready")


def _end(session: Session, job: JobRow, state: str, message: str, data: dict[str, Any] | None = None) -> None:
    states.move(session, job, state, message, data)
    leases.drop(job)


_GAVE_UP = (
    f"expected a worker to finish the job, got {leases.MAX_ATTEMPTS} attempts that died; "
    "is it too large for the workers' memory? Submit it again with a smaller batch_size"
)
