"""Notices to workers: a transaction announces them, and they are sent after its commit.

A row is the truth and a notice only says where to look. A lost notice is sent again by an idle worker. Of two equal
notices the second finds the row taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

_ANNOUNCED = "notices"


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


def announce(session: Session, notice: Notice) -> None:
    """Send a notice once this transaction is committed."""
    session.info.setdefault(_ANNOUNCED, []).append(notice)


def take_announced(session: Session) -> list[Notice]:
    """Return the notices announced in this session, and forget them."""
    notices: list[Notice] = session.info.pop(_ANNOUNCED, [])
    return notices
