"""Keyset pages: the position is the last row seen, so new rows never shift a page."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import Invalid

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
_MAX_POSITION = 2**63 - 1
Row = TypeVar("Row")
Key = TypeVar("Key", str, int)


@dataclass(frozen=True)
class Window:
    """Which page of a list."""

    limit: int = DEFAULT_LIMIT
    after: str | None = None
    """`next_cursor` of the page before."""


@dataclass(frozen=True)
class Page(Generic[Row]):
    """One page of a list."""

    data: Sequence[Row]
    has_more: bool
    next_cursor: str | None


def page(
    session: Session,
    query: Select[Row],
    column: InstrumentedAttribute[Key],
    kind: Callable[[str], Key],
    window: Window,
    *,
    newest_first: bool = True,
) -> Page[Row]:
    """One page of `query`, in the order of a unique column.

    Args:
        session: Where to read.
        query: The whole list, without order.
        column: Unique column that gives the order.
        kind: Makes the column's value from text, e.g. `int`.
        window: Which page.
        newest_first: Falling order.

    Raises:
        Invalid: the cursor is not one of ours, or the limit is out of range.
    """
    check_limit(window.limit)
    if window.after is not None:
        last = decode(window.after, kind)
        query = query.where(column < last if newest_first else column > last)
    query = query.order_by(column.desc() if newest_first else column.asc()).limit(window.limit + 1)
    rows: Sequence[Any] = session.scalars(query).all()
    more = len(rows) > window.limit
    rows = rows[: window.limit]
    return Page(rows, more, encode(getattr(rows[-1], column.key)) if more else None)


def encode(value: str | int) -> str:
    """An opaque cursor behind this value."""
    return base64.urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def decode(cursor: str, kind: Callable[[str], Key]) -> Key:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = kind(base64.b64decode(padded, altchars=b"-_", validate=True).decode())
        if isinstance(position, int) and not 0 <= position <= _MAX_POSITION:
            raise ValueError("more than a database's integer holds")
        return position
    except (ValueError, binascii.Error):
        raise Invalid.at(
            "query:after",
            "invalid_cursor",
            f"expected next_cursor of the page before, got {cursor!r:.80}; leave it out to begin anew",
        ) from None


def check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid.at("query:limit", "invalid_limit", f"expected a limit from 1 to {MAX_LIMIT}, got {limit}")
