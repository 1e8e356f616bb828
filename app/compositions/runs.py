"""Compositions as workers fit them: claim, heartbeat, progress and end. Every write checks the worker's lease."""

from datetime import timedelta
from typing import Any

from sqlalchemy import or_
from sqlalchemy.orm import Session

from app.compositions.tables import CompositionRow
from app.db import clock, leases
from app.db.clock import utc_now
from app.db.leases import Lease
from app.settings import MAX_ATTEMPTS
from app.store.objects import Stored

REST_SECONDS = 5
"""Delay before a composition can be claimed again if its worker could not reach the database or the store."""


def claim(session: Session, worker: str, seconds: int = 60) -> Lease | None:
    """Claim the oldest waiting composition."""
    rested = or_(CompositionRow.not_before.is_(None), CompositionRow.not_before < utc_now())
    free = (CompositionRow.state == "queued") & rested
    claimed = leases.claim(session, CompositionRow, free, worker, seconds, state="running", not_before=None)
    return None if claimed is None else claimed[0]


def heartbeat(session: Session, lease: Lease) -> str | None:
    """Renew the lease; returns `cancel` if the composition is to stop.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = leases.renew(session, CompositionRow, lease)
    return "cancel" if row.state == "cancelling" else None


def record(session: Session, lease: Lease, *, progress: float, message: str) -> None:
    """Record progress.

    Args:
        session: A writing session.
        lease: Lease of the composition.
        progress: Finished share, 0 to 1.
        message: Description in one line, for people.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = leases.held(session, CompositionRow, lease)
    row.progress, row.message = min(max(progress, 0.0), 1.0), message


def succeed(session: Session, lease: Lease, stored: Stored, manifest: dict[str, Any]) -> None:
    """End a composition whose file is in the store.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = leases.held(session, CompositionRow, lease)
    row.key, row.digest, row.bytes, row.manifest = stored.key, stored.digest, stored.bytes, manifest
    row.progress = 1.0
    _end(session, row, "ready", "fitted")


def fail(session: Session, lease: Lease, problem: dict[str, Any]) -> None:
    """End a composition that cannot be fitted; `problem` has at least `code` and `detail`.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = leases.held(session, CompositionRow, lease)
    row.problem = problem
    _end(session, row, "failed", str(problem["detail"]))


def finish_cancel(session: Session, lease: Lease) -> None:
    """End a composition that was cancelled while it ran.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    _end(session, leases.held(session, CompositionRow, lease), "cancelled", "cancelled")


def release(session: Session, lease: Lease) -> None:
    """Give a composition back; another worker begins it anew.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = leases.held(session, CompositionRow, lease)
    leases.drop(row)
    _requeue(session, row, "released by its worker")


def postpone(session: Session, lease: Lease, reason: str) -> None:
    """Give a composition back for `REST_SECONDS`.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = leases.held(session, CompositionRow, lease)
    row.not_before = clock.now(session) + timedelta(seconds=REST_SECONDS)
    leases.drop(row)
    _requeue(session, row, reason)


def crashed(session: Session, lease: Lease, reason: str, code: str, most: int = MAX_ATTEMPTS) -> None:
    """Record that the process of a composition died; one attempt is used.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = leases.held(session, CompositionRow, lease)
    leases.count_attempt(row)
    _retry_or_fail(session, row, reason, most)


def sweep(session: Session, most: int = MAX_ATTEMPTS) -> int:
    """Take compositions back from dead workers, and return their number."""
    rows = leases.take_back(session, CompositionRow)
    for row in rows:
        _retry_or_fail(session, row, "its worker stopped sending heartbeats", most)
    return len(rows)


def _retry_or_fail(session: Session, row: CompositionRow, reason: str, most: int) -> None:
    if row.attempts >= most and row.state != "cancelling":
        detail = f"expected a worker to fit the composition, got {most} attempts that died; the last time {reason}"
        row.problem = {"code": "attempts_exhausted", "detail": detail}
        _end(session, row, "failed", detail)
    else:
        _requeue(session, row, reason)


def _requeue(session: Session, row: CompositionRow, reason: str) -> None:
    if row.state == "cancelling":
        _end(session, row, "cancelled", "cancelled")
    else:
        row.state, row.progress, row.message = "queued", 0.0, f"{reason}; waiting for a worker"


def _end(session: Session, row: CompositionRow, state: str, message: str) -> None:
    row.state, row.message, row.finished_at = state, message, clock.now(session)
    leases.drop(row)
