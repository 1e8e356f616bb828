"""A job's history: events numbered from 1 without gaps, and the positions it tried."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.jobs.tables import EventRow, JobRow, TrialRow
from app.webhooks import outbox


@dataclass(frozen=True)
class Head:
    """How far a job's history has come."""

    seq: int
    """Number of its last event."""
    state: str


def emit(session: Session, job: JobRow, kind: str, message: str, data: dict[str, Any] | None = None) -> EventRow:
    """Add the next event; the job's row must be locked by this transaction.

    Args:
        session: A writing session.
        job: Whose history.
        kind: `state`, `progress` or `trial`.
        message: One line for people.
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
        outbox.post(session, job.workspace, f"job.{job.state}", lambda: _told(job, message, (data or {}).get("module")))
    return event


def list_events(session: Session, job_id: str, window: Window) -> Page[EventRow]:
    """A job's events, oldest first."""
    query = select(EventRow).where(EventRow.job_id == job_id)
    return page(session, query, EventRow.seq, int, window, newest_first=False)


def events_after(session: Session, job_id: str, seq: int, limit: int = 100) -> list[EventRow]:
    """Up to `limit` events that follow number `seq`, oldest first."""
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > seq)
    return list(session.scalars(query.order_by(EventRow.seq).limit(limit)))


def heads(session: Session, job_ids: Collection[str]) -> dict[str, Head]:
    """How far the histories of jobs have come, in one query; those that are gone are left out."""
    found = session.execute(select(JobRow.id, JobRow.last_seq, JobRow.state).where(JobRow.id.in_(job_ids)))
    return {job: Head(seq, state) for job, seq, state in found}


def list_trials(session: Session, job_id: str, window: Window) -> Page[TrialRow]:
    """The positions a job tried, oldest first."""
    query = select(TrialRow).where(TrialRow.job_id == job_id)
    return page(session, query, TrialRow.id, str, window, newest_first=False)


def _told(job: JobRow, message: str, module: str | None) -> dict[str, Any]:
    """What webhooks are told; `seq` puts messages in order that arrive in another."""
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
