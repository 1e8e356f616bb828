"""A list with search, filter, order and pages, which changes as the visitor types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.web.desk import Desk
from app.web.frame import button, markup
from app.web.words import empty, table
from app.zoo.catalogue import Found, Shelf

T = TypeVar("T")
REFRESH_SECONDS = 5.0
MOST_LETTERS = 200
"""Of a search."""
NEWEST = {"": "Newest first", "oldest": "Oldest first"}
SHELVES = {"": "In use", "archived": "Archived"}
"""States of what has no others."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a list shows."""

    path: str
    """Of its page, for the address bar."""
    things: str
    """What its rows are, e.g. `models`."""
    find: Callable[[Session, Shelf], Found[T]]
    columns: Sequence[str]
    row: Callable[[T], Sequence[object]]
    nothing: Markup
    """What to do when there is nothing at all."""
    orders: Mapping[str, str]
    hint: str
    """What a search looks at."""
    states: Mapping[str, str] | None = None
    """States to choose from, with their names."""


def asked(search: str, order: str, state: str, page: int) -> Shelf:
    """The part of a list that an address names."""
    return Shelf(search[:MOST_LETTERS], order, state, start=Shelf.count * max(min(page, 10**6) - 1, 0))


class Listing(Generic[T]):
    """The list on a page, with its controls.

    Args:
        desk: What the page works with.
        kind: What is listed.
        shelf: Where to begin.
    """

    def __init__(self, desk: Desk, kind: Kind[T], shelf: Shelf) -> None:
        self._desk, self._kind, self._shelf = desk, kind, shelf
        self._shown = ""

    async def build(self) -> None:
        """Put controls and rows on the page, and keep the rows up to date."""
        first = await self._read()
        self._controls()
        with ui.element("div").classes("card flush"):
            self._table = markup(Markup(""))
        with ui.element("div").classes("pager"):
            self._range = ui.label().props('aria-live="polite"')
            with ui.element("div").classes("actions"):
                self._back = button("Back", on_click=lambda: self._turn(-1))
                self._next = button("Next", on_click=lambda: self._turn(1))
        self._show(*first)
        ui.timer(REFRESH_SECONDS, self.refresh, immediate=False)

    async def refresh(self) -> None:
        """Read the rows again; the page changes only if they did."""
        self._show(*await self._read())

    def _controls(self) -> None:
        kind = self._kind
        with ui.element("div").classes("tools"):
            search = ui.input(placeholder=f"Search {kind.hint}", value=self._shelf.search)
            search.props(f'outlined dense clearable debounce=250 aria-label="Search {kind.things}"').classes("grow")
            search.on_value_change(lambda event: self._change(search=str(event.value or "")[:MOST_LETTERS]))
            if kind.states:
                self._choice("Show", kind.states, self._shelf.state, lambda value: self._change(state=value))
            self._choice("Order", kind.orders, self._shelf.order, lambda value: self._change(order=value))

    def _choice(self, label: str, options: Mapping[str, str], value: str, change: Callable[[str], Any]) -> None:
        known = value if value in options else ""
        select = ui.select(dict(options), value=known, on_change=lambda event: change(event.value or ""))
        select.props(f'outlined dense options-dense aria-label="{label}"').style("min-width: 150px")

    async def _change(self, **changes: Any) -> None:
        self._shelf = replace(self._shelf, start=0, **changes)
        await self._moved()

    async def _turn(self, pages: int) -> None:
        self._shelf = replace(self._shelf, start=max(self._shelf.start + pages * self._shelf.count, 0))
        await self._moved()

    async def _moved(self) -> None:
        shelf = self._shelf
        page = shelf.start // shelf.count + 1
        query = {"search": shelf.search, "order": shelf.order, "state": shelf.state, "page": page if page > 1 else ""}
        text = urlencode({name: value for name, value in query.items() if value})
        ui.navigate.history.replace(self._kind.path + (f"?{text}" if text else ""))
        await self.refresh()

    async def _read(self) -> tuple[Markup, int]:
        asked_for = self._shelf
        content, total, shelf = await self._desk.read(lambda session: part(session, self._kind, asked_for))
        if self._shelf is asked_for:  # the visitor has turned no page meanwhile
            self._shelf = shelf
        return content, total

    def _show(self, content: Markup, total: int) -> None:
        shelf = self._shelf
        if content != self._shown:
            self._table.set_content(content)
            self._shown = content
        last = min(shelf.start + shelf.count, total)
        self._range.set_text(_range(shelf.start, last, total, self._kind.things))
        self._back.set_visibility(shelf.start > 0)
        self._next.set_visibility(last < total)


def part(session: Session, kind: Kind[T], shelf: Shelf) -> tuple[Markup, int, Shelf]:
    """Rows of a list, how long it is, and the part that is shown: the last one for whoever asks for what is behind."""
    found = kind.find(session, shelf)
    if not found.rows and shelf.start:
        shelf = replace(shelf, start=max(found.total - 1, 0) // shelf.count * shelf.count)
        found = kind.find(session, shelf)
    if found.rows:
        return table(kind.columns, [kind.row(row) for row in found.rows], kind.things), found.total, shelf
    if shelf.search or shelf.state:
        return empty(f"No {kind.things} like that", "Search for something else, or show all."), found.total, shelf
    return empty(f"No {kind.things} yet", kind.nothing), found.total, shelf


def _range(start: int, last: int, total: int, things: str) -> str:
    """Which rows are shown, in words."""
    if total <= Shelf.count and start == 0:
        return f"{total} {things.removesuffix('s') if total == 1 else things}" if total else ""
    return f"{start + 1:,} to {last:,} of {total:,} {things}"
