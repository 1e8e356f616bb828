"""What was put away: archived things leave the lists, take no new work, and come back when they are restored.

What runs or is served goes on. What is archived can be removed for good, see `app.lifecycle.purges`;
from then on its row only says what there was, and is found no more.
"""

from typing import TypeVar

from sqlalchemy.orm import Session

from app.db import clock
from app.db.tables import Archivable
from app.errors import Archived, NotFound

Row = TypeVar("Row", bound=Archivable)


def found(row: Row | None, otherwise: str, *, purged: bool = False) -> Row:
    """The row that was looked for.

    Args:
        row: What the database has.
        otherwise: What to say when it has none.
        purged: Also one of which nothing but the row is left.

    Raises:
        NotFound: there is none, or not any more.
    """
    if row is None:
        raise NotFound(otherwise)
    if row.purged_at is not None and not purged:
        raise NotFound(f"{otherwise}; it was purged on {row.purged_at:%Y-%m-%d} and does not come back")
    return row


def set_archived(session: Session, row: Archivable, archived: bool) -> None:
    """Archive or restore a row; again changes nothing."""
    row.archived_at = (row.archived_at or clock.now(session)) if archived else None


def hold(session: Session, *rows: Archivable) -> None:
    """Keep rows from being purged until the transaction ends, in which others come to refer to them.

    Raises:
        NotFound: one was purged meanwhile.
    """
    session.flush()
    for row in sorted(rows, key=lambda row: row.id):  # always in this order, so that two never wait for each other
        session.refresh(row, ["archived_at", "purged_at"], with_for_update={"read": True})
        found(row, f"expected {row.id} to be there still, got it purged meanwhile")


def check_live(row: Archivable) -> None:
    """See that something may take new work.

    Raises:
        Archived: it was put away.
    """
    if row.archived_at is not None:
        raise Archived(f"{row.id}: expected one that is in use, got one that is archived; restore it first")
