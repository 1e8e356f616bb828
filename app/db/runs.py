"""Runs: rows that wait, are worked on by one worker, and end once. Every write checks the worker's lease."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import or_
from sqlalchemy.orm import Session

from app.db import clock, leases
from app.db.clock import utc_now
from app.db.leases import Lease
from app.db.tables import Run
from app.settings import MAX_ATTEMPTS

Row = TypeVar("Row", bound=Run)
REST_SECONDS = 5
"""Delay before a run can be claimed again if its worker could not reach the database or the store."""


@dataclass(frozen=True)
class Runs(Generic[Row]):
    """The runs of one table.

    Every method with a lease raises `LeaseLost` if another worker has the run now.
    """

    table: type[Row]
    work: str
    """What a worker should do, for messages: `finish the import`."""

    def claim(self, session: Session, worker: str, seconds: int = 60) -> Lease | None:
        """Claim the oldest waiting run."""
        table = self.table
        rested = or_(table.not_before.is_(None), table.not_before < utc_now())
        free = (table.state == "queued") & rested
        claimed = leases.claim(session, table, free, worker, seconds, state="running", not_before=None)
        return None if claimed is None else claimed[0]

    def heartbeat(self, session: Session, lease: Lease) -> str | None:
        """Renew the lease; returns `cancel` if the run is to stop."""
        row = leases.renew(session, self.table, lease)
        return "cancel" if row.state == "cancelling" else None

    def held(self, session: Session, lease: Lease) -> Row:
        """The run's row, locked until the transaction ends."""
        return leases.held(session, self.table, lease)

    def record(self, session: Session, lease: Lease, *, progress: float, message: str) -> None:
        """Record progress.

        Args:
            session: A writing session.
            lease: Lease of the run.
            progress: Finished share, 0 to 1.
            message: Description in one line, for people.
        """
        row = self.held(session, lease)
        row.progress, row.message = min(max(progress, 0.0), 1.0), message

    def fail(self, session: Session, lease: Lease, problem: dict[str, Any]) -> None:
        """End a run that cannot succeed; `problem` has at least `code` and `detail`."""
        row = self.held(session, lease)
        row.problem = problem
        end(session, row, "failed", str(problem["detail"]))

    def finish_cancel(self, session: Session, lease: Lease) -> None:
        """End a run that was cancelled while it ran."""
        end(session, self.held(session, lease), "cancelled", "cancelled")

    def release(self, session: Session, lease: Lease) -> None:
        """Give a run back; another worker begins it anew."""
        row = self.held(session, lease)
        leases.drop(row)
        _requeue(session, row, "released by its worker")

    def postpone(self, session: Session, lease: Lease, reason: str) -> None:
        """Give a run back for `REST_SECONDS`."""
        row = self.held(session, lease)
        row.not_before = clock.now(session) + timedelta(seconds=REST_SECONDS)
        leases.drop(row)
        _requeue(session, row, reason)

    def crashed(self, session: Session, lease: Lease, reason: str, code: str, most: int = MAX_ATTEMPTS) -> None:
        """Record that the process of a run died; one attempt is used."""
        row = self.held(session, lease)
        leases.count_attempt(row)
        self._retry_or_fail(session, row, reason, most)

    def sweep(self, session: Session, most: int = MAX_ATTEMPTS) -> int:
        """Take runs back from dead workers, and return their number."""
        rows: Sequence[Row] = leases.take_back(session, self.table)
        for row in rows:
            self._retry_or_fail(session, row, "its worker stopped sending heartbeats", most)
        return len(rows)

    def _retry_or_fail(self, session: Session, row: Row, reason: str, most: int) -> None:
        if row.attempts >= most and row.state != "cancelling":
            detail = f"expected a worker to {self.work}, got {most} attempts that died; the last time {reason}"
            row.problem = {"code": "attempts_exhausted", "detail": detail}
            end(session, row, "failed", detail)
        else:
            _requeue(session, row, reason)


def end(session: Session, row: Run, state: str, message: str) -> None:
    """End a run in a state, and its lease."""
    row.state, row.message, row.finished_at = state, message, clock.now(session)
    leases.drop(row)


def cancel(session: Session, row: Run) -> None:
    """Cancel a run that has not ended: a waiting one at once, a running one as soon as its worker reads the request."""
    if row.state == "queued":
        row.state, row.message, row.finished_at = "cancelled", "cancelled before it began", clock.now(session)
    elif row.state == "running":
        row.state, row.message = "cancelling", "its worker will stop"
    session.flush()


def _requeue(session: Session, row: Run, reason: str) -> None:
    if row.state == "cancelling":
        end(session, row, "cancelled", "cancelled")
    else:
        row.state, row.progress, row.message = "queued", 0.0, f"{reason}; waiting for a worker"
