"""Leases: one worker at a time on a row, and none for ever.

A claim is one conditional UPDATE; of any number of claimers one wins. Each
claim raises the row's fencing token, and every later write names its token:
a worker that was silent too long finds its token outdated and must stop.
Expiry is measured by the database's clock alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, lazyload

from app.db import clock
from app.db.clock import utc_in, utc_now
from app.db.tables import Leased
from app.errors import LeaseLost

FRESH = {"populate_existing": True}
"""A locked row counts as it is now, not as the session once saw it."""
_ALONE = lazyload("*")
"""What hangs on a row is looked up when it is asked for: most writers only want the row."""
Row = TypeVar("Row", bound=Leased)


@dataclass(frozen=True)
class Lease:
    """The right to work on one row; plain data, so that it can be handed to a child process."""

    id: str
    """The row's id."""
    worker: str
    token: int
    """Fencing token of this claim."""
    seconds: int
    """How long the lease lasts after the last heartbeat."""


def claim(
    session: Session, table: type[Row], free: ColumnElement[bool], worker: str, seconds: int, **values: Any
) -> tuple[Lease, Row] | None:
    """Take the oldest free row, which is locked until the transaction ends.

    Args:
        session: A writing session.
        table: Which rows.
        free: When a row can be taken.
        worker: Who takes it.
        seconds: How long the lease lasts without a heartbeat.
        **values: Columns to set in the same statement.
    """
    oldest = select(table.id).where(free).order_by(table.id).limit(1).with_for_update(skip_locked=True)
    statement = (
        update(table)
        .where(table.id == oldest.scalar_subquery(), free)
        .values(
            lease_worker=worker,
            lease_token=table.lease_token + 1,
            lease_expires_at=utc_in(seconds),
            **values,
        )
        .returning(table)
        .options(_ALONE)
    )
    row = session.scalars(statement, execution_options={**FRESH, "synchronize_session": False}).one_or_none()
    return None if row is None else (Lease(row.id, worker, row.lease_token, seconds), row)


def held(session: Session, table: type[Row], lease: Lease) -> Row:
    """The leased row, locked until the transaction ends.

    Raises:
        LeaseLost: the row is not, or no longer, this lease's.
    """
    query = select(table).where(
        table.id == lease.id, table.lease_worker == lease.worker, table.lease_token == lease.token
    )
    row = session.scalars(query.with_for_update(of=table).options(_ALONE), execution_options=FRESH).one_or_none()
    if row is None:
        raise LeaseLost(
            f"{lease.id}: expected the lease with token {lease.token} of {lease.worker}, got a newer one or none; "
            "stop, and write nothing more for it"
        )
    return row


def renew(session: Session, row: Leased, lease: Lease) -> None:
    """Give the lease its whole time again."""
    row.lease_expires_at = clock.now(session) + timedelta(seconds=lease.seconds)


def drop(row: Leased) -> None:
    """End the lease; its token is worth nothing from now on."""
    row.lease_worker = None
    row.lease_expires_at = None


def take_back(session: Session, table: type[Row]) -> Sequence[Row]:
    """End all leases that have run out and count one more attempt on each row; the rows are locked."""
    query = select(table).where(table.lease_expires_at < utc_now()).with_for_update(skip_locked=True)
    rows = session.scalars(query, execution_options=FRESH).all()
    for row in rows:
        count_attempt(row)
    return rows


def count_attempt(row: Leased) -> None:
    """End a lease that came to nothing."""
    drop(row)
    row.attempts += 1
