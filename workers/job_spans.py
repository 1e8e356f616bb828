"""Spans for a worker's attempts, as a part of the trace that the row belongs to."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from app.db.leases import Lease
from app.jobs.tables import AttemptRow, JobRow, StepRow
from app.process import tracing
from app.process.troubles import Complaints
from app.zoo import Zoo

_complain = Complaints(logging.getLogger(__name__))


@contextmanager
def attempt(zoo: Zoo, lease: Lease) -> Iterator[dict[str, str]]:
    """A span around one attempt on a claimed row; the outcome is added at the end.

    Args:
        zoo: The open zoo.
        lease: Lease of a job or a step; other rows are not traced.

    Yields:
        Environment variables with which the child process continues the trace.
    """
    row = _row(zoo, lease) if tracing.is_on() else None
    if row is None:
        yield {}
        return
    job_id = row.id if isinstance(row, JobRow) else row.job_id
    name = "attempt" if isinstance(row, JobRow) else "help"
    about = {"job_id": job_id, "attempt": lease.token, "worker": lease.worker, "step": getattr(row, "name", None)}
    with tracing.span(name, parent=row.traceparent, **about):
        try:
            yield {tracing.PARENT: tracing.traceparent() or ""}
        finally:
            tracing.note(outcome=_outcome(zoo, lease))


def _row(zoo: Zoo, lease: Lease) -> JobRow | StepRow | None:
    try:
        with zoo.database.read() as session:
            return session.get(JobRow, lease.id) or session.get(StepRow, lease.id)
    except SQLAlchemyError as error:
        _complain(f"{lease.id}: its trace cannot be read", error)
        return None


def _outcome(zoo: Zoo, lease: Lease) -> str | None:
    """The outcome in the attempt's row."""
    try:
        with zoo.database.read() as session:
            row = session.get(AttemptRow, (lease.id, lease.token))
            return None if row is None else row.outcome
    except SQLAlchemyError as error:
        _complain(f"{lease.id}: its outcome cannot be read", error)
        return None
