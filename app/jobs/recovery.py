"""Recovery of cloning jobs: retry or fail jobs of dead or unresponsive workers, and queue validating jobs."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock, leases
from app.db.leases import Lease
from app.jobs import attempts, states
from app.jobs.rules import size_of
from app.jobs.tables import JobRow
from app.settings import MAX_ATTEMPTS
from pnc_core.config import CloneConfig
from pnc_core.errors import ConfigError, PncError
from pnc_core.module.manifest import build

STOP_SECONDS = 180
"""If a worker has not stopped this long after a request to pause or cancel, it loses the job."""
_GAVE_UP = (
    "expected a worker to finish the job, got {} attempts that died without a new checkpoint; "
    "if the job needs more memory than the workers have, submit it again with a smaller batch_size"
)
_TOO_LARGE = (
    "expected the job to fit into a worker's memory, got two attempts that ran out of memory; "
    "submit it again with a smaller batch_size, fewer views or fewer screen_images"
)


def crashed(
    session: Session, lease: Lease, reason: str, code: str = attempts.CRASHED, most: int = MAX_ATTEMPTS
) -> None:
    """Record that the process that ran the job died. This counts as a failed attempt.

    Args:
        session: A writing session.
        lease: Lease of the job.
        reason: Cause of the death, in one line, for people.
        code: One of the outcomes in `app.jobs.attempts`.
        most: The job fails after this number of attempts without a new checkpoint.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    leases.count_attempt(job)
    _retry_or_fail(session, job, reason, code, most)


def refuse(session: Session, lease: Lease, reason: str) -> None:
    """Record that a worker refused the job, because the job would not fit into the worker's memory.

    The job waits for a worker of large jobs. If such a worker refuses it, it fails. No attempt is used.

    Args:
        session: A writing session.
        lease: Lease of the job.
        reason: Needed memory and the worker's memory, in one line, for people.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    stopped = states.STOPPED.get(job.state)
    if stopped is None and job.size == "large":
        job.problem = {"code": attempts.NOT_ENOUGH_MEMORY, "detail": reason}
        states.end_claim(session, job, "failed", reason, job.problem, outcome=attempts.NOT_ENOUGH_MEMORY)
        return
    job.size = "large"
    message = f"{reason}; it waits for a worker of large jobs"
    states.end_claim(session, job, stopped or "queued", message, outcome=attempts.NOT_ENOUGH_MEMORY)


def sweep(session: Session, most: int = MAX_ATTEMPTS) -> int:
    """Take jobs back from workers whose leases have expired, and return their number.

    Args:
        session: A writing session.
        most: A job fails after this number of attempts without a new checkpoint.
    """
    rows = leases.take_back(session, JobRow)
    for job in rows:
        _retry_or_fail(session, job, "its worker stopped sending heartbeats", attempts.SILENT, most)
    _end_unstopped(session)
    settle(session)
    return len(rows)


def _end_unstopped(session: Session) -> None:
    """Take jobs from workers that renew their lease but do not stop within `STOP_SECONDS` of a request."""
    limit = clock.now(session) - timedelta(seconds=STOP_SECONDS)
    query = select(JobRow).where(JobRow.state.in_(states.STOPPED), JobRow.asked_at < limit)
    for job in session.scalars(query.with_for_update(skip_locked=True, of=JobRow), execution_options=leases.FRESH):
        message = f"its worker did not stop within {STOP_SECONDS} s and lost the job"
        states.end_claim(session, job, states.STOPPED[job.state], message)


def _retry_or_fail(session: Session, job: JobRow, reason: str, code: str, most: int) -> None:
    stopped = states.STOPPED.get(job.state)
    job.fruitless += 1
    attempts.end(session, job, code, reason)
    if stopped:
        states.move(session, job, stopped, f"{reason}; the job was to be {stopped}")
    elif code == attempts.OUT_OF_MEMORY and attempts.count(session, job, code) > 1:
        job.problem = {"code": code, "detail": f"{_TOO_LARGE}; the last attempt: {reason}"}
        states.move(session, job, "failed", job.problem["detail"], job.problem)
    elif job.fruitless >= most:
        job.problem = {"code": "attempts_exhausted", "detail": f"{_GAVE_UP.format(most)}; the last attempt: {reason}"}
        states.move(session, job, "failed", job.problem["detail"], job.problem)
    else:
        if code == attempts.OUT_OF_MEMORY:
            job.size = "large"
        states.move(session, job, "queued", f"{reason}; attempt {job.attempts + 1} follows")


def settle(session: Session) -> None:
    """Queue validating jobs whose versions are ready, and fail jobs with a rejected version."""
    query = select(JobRow).where(JobRow.state == "validating").with_for_update(skip_locked=True)
    for job in session.scalars(query, execution_options=leases.FRESH).all():
        versions = (job.target_version, job.source_version)
        rejected = next((v for v in versions if v.status == "rejected"), None)
        if rejected is not None:
            reason = (rejected.problem or {}).get("detail", "no reason was recorded")
            job.problem = {"code": "version_rejected", "detail": f"{rejected.ref} was rejected: {reason}"}
            states.move(session, job, "failed", job.problem["detail"], job.problem)
        elif all(v.status == "ready" for v in versions):
            _queue(session, job)


def _queue(session: Session, job: JobRow) -> None:
    """Queue a job whose versions are ready. A job with invalid stored parameters fails alone."""
    try:
        config = build(CloneConfig, job.config, job.id)
    except PncError as error:
        job.problem = {"code": ConfigError.code, "detail": f"{error}; submit it again"}
        states.move(session, job, "failed", job.problem["detail"], job.problem)
    else:
        job.size = size_of(job.target_version, job.source_version, job.dataset, config)
        states.move(session, job, "queued", "both versions are ready")
