"""Archived rows: they leave the lists and take no new work until they are restored.

Running jobs and served deployments continue. `app.lifecycle.purges` removes an archived thing for good. Its row
remains as a record, and look-ups no longer find it.
"""

from typing import TypeVar

from sqlalchemy.orm import Session

from app.db import clock
from app.db.tables import Archivable
from app.errors import Archived, NotFound

Row = TypeVar("Row", bound=Archivable)


def found(row: Row | None, otherwise: str, *, purged: bool = False) -> Row:
    """Return the row, or raise an error if it does not exist or is purged.

    Args:
        row: Result of a look-up.
        otherwise: Message of the error.
        purged: Return a purged row too.

    Raises:
        NotFound: the row does not exist, or is purged.
    """
    if row is None:
        raise NotFound(otherwise)
    if row.purged_at is not None and not purged:
        raise NotFound(f"{otherwise}; it was purged on {row.purged_at:%Y-%m-%d} and cannot be restored")
    return row


def set_archived(session: Session, row: Archivable, archived: bool) -> None:
    """Archive or restore a row. Idempotent."""
    row.archived_at = (row.archived_at or clock.now(session)) if archived else None


def hold(session: Session, *rows: Archivable) -> None:
    """Lock rows against purging until this transaction commits.

    Raises:
        NotFound: a row was purged in the meantime.
    """
    session.flush()
    for row in sorted(rows, key=lambda row: row.id):  # a fixed order prevents deadlocks
        session.refresh(row, ["archived_at", "purged_at"], with_for_update={"read": True})
        found(row, f"expected {row.id} to exist, got a row that was purged in the meantime")


def check_live(row: Archivable) -> None:
    """Check that a row may take new work.

    Raises:
        Archived: the row is archived.
    """
    if row.archived_at is not None:
        raise Archived(f"{row.id}: expected one that is not archived, got an archived one; restore it first")
