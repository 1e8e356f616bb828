"""A job's history: events numbered from 1 without gaps, and trials of positions."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db import clock
from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.jobs.tables import EventRow, JobRow, TrialRow
from app.webhooks import outbox


@dataclass(frozen=True)
class Head:
    """The newest event number and the state of a job."""

    seq: int
    """Number of the newest event."""
    state: str
    """State of the job."""


def emit(session: Session, job: JobRow, kind: str, message: str, data: dict[str, Any] | None = None) -> EventRow:
    """Add an event to a job. An event of kind `state` also posts a webhook message.

    Args:
        session: A writing session.
        job: The job, locked by this session.
        kind: `state`, `progress` or `trial`.
        message: Description in one line, for people.
        data: Details for programs.
    """
    job.last_seq += 1
    event = EventRow(
        job_id=job.id,
        seq=job.last_seq,
        id=new_id("evt"),
        type=kind,
        state=job.state,
        stage=job.stage,
        progress=job.progress,
        message=message,
        data=data or {},
    )
    session.add(event)
    if kind == "state":
        module = (data or {}).get("module")
        outbox.post(session, job.workspace, f"job.{job.state}", lambda: _message_data(job, message, module))
    return event


def list_events(session: Session, job_id: str, window: Window) -> Page[EventRow]:
    """A job's events, oldest first."""
    query = select(EventRow).where(EventRow.job_id == job_id)
    return page(session, query, EventRow.seq, int, window, newest_first=False)


def events_after(session: Session, job_id: str, seq: int, limit: int = 100) -> list[EventRow]:
    """A job's events with numbers greater than `seq`, oldest first, at most `limit`."""
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > seq)
    return list(session.scalars(query.order_by(EventRow.seq).limit(limit)))


def forget_old(session: Session, days: float, most: int) -> int:
    """Delete at most `most` events that are older than a number of days; returns how many there were.

    An id begins with its creation time, so that the index of the ids finds the oldest events.
    """
    first = f"evt_{int((clock.now(session) - timedelta(days=days)).timestamp() * 1000):012x}"
    old = select(EventRow.id).where(EventRow.id < first).order_by(EventRow.id).limit(most)
    statement = delete(EventRow).where(EventRow.id.in_(old)).returning(EventRow.id)
    return len(session.execute(statement, execution_options={"synchronize_session": False}).all())


def heads(session: Session, job_ids: Collection[str]) -> dict[str, Head]:
    """The newest event number and state of each job, read in one query. Jobs that do not exist are left out."""
    found = session.execute(select(JobRow.id, JobRow.last_seq, JobRow.state).where(JobRow.id.in_(job_ids)))
    return {job: Head(seq, state) for job, seq, state in found}


def list_trials(session: Session, job_id: str, window: Window) -> Page[TrialRow]:
    """A job's trials, oldest first."""
    query = select(TrialRow).where(TrialRow.job_id == job_id)
    return page(session, query, TrialRow.id, str, window, newest_first=False)


def _message_data(job: JobRow, message: str, module: str | None) -> dict[str, Any]:
    """The data of a webhook message. Receivers can sort messages by `seq`: they may arrive in another order."""
    return {
        "job": job.id,
        "state": job.state,
        "seq": job.last_seq,
        "target": job.target_ref,
        "source": job.source_ref,
        "message": message,
        "module": module,
        "problem": job.problem,
    }
