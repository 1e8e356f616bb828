"""Keyset pagination: a cursor holds the position of the last row, so that new rows never shift a page."""

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
    """Size and position of a page."""

    limit: int = DEFAULT_LIMIT
    after: str | None = None
    """`next_cursor` of the previous page."""


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
        session: A session.
        query: The whole list, without order.
        column: Unique column that gives the order.
        kind: Converts text to the column's type, e.g. `int`.
        window: Size and position of the page.
        newest_first: Descending order.

    Raises:
        Invalid: the cursor is malformed, or the limit is out of range.
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
    """Cursor for the position after this value."""
    return base64.urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def decode(cursor: str, kind: Callable[[str], Key]) -> Key:
    """The position that a cursor holds.

    Raises:
        Invalid: the cursor is malformed.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = kind(base64.b64decode(padded, altchars=b"-_", validate=True).decode())
        if isinstance(position, int) and not 0 <= position <= _MAX_POSITION:
            raise ValueError("expected an integer of 64 bits, got a larger one")
        return position
    except (ValueError, binascii.Error):
        raise Invalid.at(
            "query:after",
            "invalid_cursor",
            f"expected next_cursor of the previous page, got {cursor!r:.80}; leave it out for the first page",
        ) from None


def check_limit(limit: int) -> None:
    """Check the size of a page.

    Raises:
        Invalid: the limit is out of range.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid.at("query:limit", "invalid_limit", f"expected a limit from 1 to {MAX_LIMIT}, got {limit}")
