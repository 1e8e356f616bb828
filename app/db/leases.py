"""Leases: at most one worker works on a row, and a lease expires.

A claim is one conditional UPDATE, so that one of several claimers succeeds. Each
claim increases the row's fencing token, and every later write checks the token.
A worker whose lease has expired finds another token and must stop.
The database's clock alone decides when a lease expires.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, lazyload

from app.db.clock import utc_in, utc_now
from app.db.tables import Leased
from app.errors import LeaseLost

FRESH = {"populate_existing": True}
"""Execution option that replaces loaded attributes by the current values of a locked row."""
_ALONE = lazyload("*")
"""Loads related rows only on access, because most writers need the row alone."""
Row = TypeVar("Row", bound=Leased)


@dataclass(frozen=True)
class Lease:
    """The right to work on one row. Plain data, so that it can be passed to a child process."""

    id: str
    """Id of the row."""
    worker: str
    token: int
    """Fencing token of this claim."""
    seconds: int
    """Duration of the lease after the last heartbeat."""


def claim(
    session: Session, table: type[Row], free: ColumnElement[bool], worker: str, seconds: int, **values: Any
) -> tuple[Lease, Row] | None:
    """Claim the oldest free row, and lock it until the transaction ends.

    Args:
        session: A writing session.
        table: Table of the rows.
        free: Condition of a free row.
        worker: Name of the claiming worker.
        seconds: Duration of the lease without a heartbeat.
        **values: Columns to set in the same statement.

    Returns:
        The lease and the row; None: no row is free.
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
        LeaseLost: another claim has replaced the lease, or the lease has ended.
    """
    query = select(table).where(
        table.id == lease.id, table.lease_worker == lease.worker, table.lease_token == lease.token
    )
    row = session.scalars(query.with_for_update(of=table).options(_ALONE), execution_options=FRESH).one_or_none()
    if row is None:
        raise _lost(lease)
    return row


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"{lease.id}: expected the lease with token {lease.token} of {lease.worker}, got a newer one or none; "
        "stop, and write nothing more for this row"
    )


def renew(session: Session, table: type[Row], lease: Lease) -> Row:
    """Extend the lease to its full duration from now on, in one statement; the row stays locked.

    Raises:
        LeaseLost: another claim has replaced the lease, or the lease has ended.
    """
    statement = (
        update(table)
        .where(table.id == lease.id, table.lease_worker == lease.worker, table.lease_token == lease.token)
        .values(lease_expires_at=utc_in(lease.seconds))
        .returning(table)
        .options(_ALONE)
    )
    row = session.scalars(statement, execution_options={**FRESH, "synchronize_session": False}).one_or_none()
    if row is None:
        raise _lost(lease)
    return row


def drop(row: Leased) -> None:
    """End the lease. Writes with its token fail from now on."""
    row.lease_worker = None
    row.lease_expires_at = None


def take_back(session: Session, table: type[Row]) -> Sequence[Row]:
    """End all expired leases and count an attempt on each row. The rows stay locked."""
    query = select(table).where(table.lease_expires_at < utc_now()).with_for_update(skip_locked=True)
    rows = session.scalars(query, execution_options=FRESH).all()
    for row in rows:
        count_attempt(row)
    return rows


def count_attempt(row: Leased) -> None:
    """End a lease that expired, and count the attempt."""
    drop(row)
    row.attempts += 1
