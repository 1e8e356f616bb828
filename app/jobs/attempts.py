"""Attempts: one row for each claim of a job by a worker, with its times and its outcome."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import clock
from app.db.pages import Page, Window, page
from app.jobs.tables import AttemptRow, JobRow

CRASHED, SILENT, OUT_OF_MEMORY, DEADLINE = "crashed", "silent", "out_of_memory", "deadline_exceeded"
NOT_ENOUGH_MEMORY = "not_enough_memory"
"""The job was refused before its images were loaded, because it would not fit."""


def begin(session: Session, job: JobRow, worker: str) -> None:
    """Record that a worker has claimed the job."""
    session.add(AttemptRow(job_id=job.id, number=job.lease_token, worker=worker))


def end(session: Session, job: JobRow, outcome: str, reason: str) -> None:
    """Record the end of a job's newest attempt; if it has ended already, nothing changes.

    Args:
        session: A writing session.
        job: The job, locked by this session.
        outcome: The job's new state, `released`, or one of this module's constants.
        reason: Description in one line, for people.
    """
    row = session.get(AttemptRow, (job.id, job.lease_token))
    if row is not None and row.ended_at is None:
        row.ended_at, row.outcome, row.reason = clock.now(session), outcome, reason


def count(session: Session, job: JobRow, outcome: str) -> int:
    """The number of a job's attempts with this outcome."""
    session.flush()
    query = select(func.count()).where(AttemptRow.job_id == job.id, AttemptRow.outcome == outcome)
    return session.scalar(query) or 0


def list_attempts(session: Session, job_id: str, window: Window) -> Page[AttemptRow]:
    """A job's attempts, oldest first."""
    query = select(AttemptRow).where(AttemptRow.job_id == job_id)
    return page(session, query, AttemptRow.number, int, window, newest_first=False)
