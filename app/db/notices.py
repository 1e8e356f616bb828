"""Notices to workers: a transaction announces them, and they are sent after its commit.

A row is the truth and a notice only says where to look. A lost notice is sent again by an idle worker. Of two equal
notices the second finds the row taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, UOWTransaction

from app.db.isolation import ZooSession
from app.db.tables import Leased

_ANNOUNCED, _WAITING = "notices", "waiting"


@dataclass(frozen=True)
class Notice:
    """One message to workers."""

    task: str
    """Name of the task that receives it."""
    id: str
    """Id of the row to look at."""
    queue: str
    """Queue of the workers that may take the row."""


class Notifier(Protocol):
    """Sends notices."""

    def send(self, notices: Iterable[Notice]) -> None:
        """Send them. An error of the broker is logged and not raised, because a sweeper sends the notices again."""

    def wake(self, tables: Iterable[str]) -> None:
        """Wake an idle worker for each table in which rows began to wait. An error is logged and not raised."""


def announce(session: Session, notice: Notice) -> None:
    """Send a notice once this transaction is committed."""
    session.info.setdefault(_ANNOUNCED, []).append(notice)


def take_announced(session: Session) -> list[Notice]:
    """Return the notices announced in this session, and forget them."""
    notices: list[Notice] = session.info.pop(_ANNOUNCED, [])
    return notices


def take_waiting(session: Session) -> set[str]:
    """Return the tables in which rows began to wait in this session, and forget them."""
    tables: set[str] = session.info.pop(_WAITING, set())
    return tables


@event.listens_for(ZooSession, "after_flush")
def _note_waiting(session: Session, _context: UOWTransaction) -> None:
    """Note the tables of written rows that wait for a worker."""
    for row in (*session.new, *session.dirty):
        if isinstance(row, Leased) and row.is_waiting:
            session.info.setdefault(_WAITING, set()).add(row.__tablename__)  # type: ignore[attr-defined]
