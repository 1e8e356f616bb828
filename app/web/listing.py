"""A list with search, filter, order and pages, which updates while the visitor types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.web.catalogue import Found, ListQuery
from app.web.frame import button, markup
from app.web.html import empty, table
from app.web.page_context import PageContext

T = TypeVar("T")
REFRESH_SECONDS = 5.0
MOST_LETTERS = 200
"""Maximum characters of a search."""
NEWEST = {"": "Newest first", "oldest": "Oldest first"}
ARCHIVE_STATES = {"": "In use", "archived": "Archived"}
"""Filter of lists whose rows have no state except being archived."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """Definition of a list."""

    path: str
    """Path of the list's page, for the address bar."""
    things: str
    """Plural name of the rows, e.g. `models`."""
    find: Callable[[Session, ListQuery], Found[T]]
    """Reads one page of rows."""
    columns: Sequence[str]
    """Titles of the columns."""
    row: Callable[[T], Sequence[object]]
    """The cells of a row."""
    nothing: Markup
    """Advice on the next step, shown if the list has no rows."""
    orders: Mapping[str, str]
    """Orders to choose from, with their names."""
    hint: str
    """Names of the searched fields."""
    states: Mapping[str, str] | None = None
    """States to choose from, with their names."""


def asked(search: str, order: str, state: str, page: int) -> ListQuery:
    """The list query of a page's address."""
    return ListQuery(search[:MOST_LETTERS], order, state, start=ListQuery.count * max(min(page, 10**6) - 1, 0))


class Listing(Generic[T]):
    """A list on a page, with its controls.

    Args:
        context: Context of the page.
        kind: Definition of the list.
        list_query: First query of the list.
    """

    def __init__(self, context: PageContext, kind: Kind[T], list_query: ListQuery) -> None:
        self._context, self._kind, self._list_query = context, kind, list_query
        self._shown = ""

    async def build(self) -> None:
        """Add controls and rows to the page, and refresh the rows periodically."""
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
        """Read the rows again; the page changes only if the rows have changed."""
        self._show(*await self._read())

    def _controls(self) -> None:
        kind = self._kind
        with ui.element("div").classes("tools"):
            search = ui.input(placeholder=f"Search {kind.hint}", value=self._list_query.search)
            search.props(f'outlined dense clearable debounce=250 aria-label="Search {kind.things}"').classes("grow")
            search.on_value_change(lambda event: self._change(search=str(event.value or "")[:MOST_LETTERS]))
            if kind.states:
                self._choice("Show", kind.states, self._list_query.state, lambda value: self._change(state=value))
            self._choice("Order", kind.orders, self._list_query.order, lambda value: self._change(order=value))

    def _choice(self, label: str, options: Mapping[str, str], value: str, change: Callable[[str], Any]) -> None:
        known = value if value in options else ""
        select = ui.select(dict(options), value=known, on_change=lambda event: change(event.value or ""))
        select.props(f'outlined dense options-dense aria-label="{label}"').style("min-width: 150px")

    async def _change(self, **changes: Any) -> None:
        self._list_query = replace(self._list_query, start=0, **changes)
        await self._apply()

    async def _turn(self, pages: int) -> None:
        self._list_query = replace(
            self._list_query, start=max(self._list_query.start + pages * self._list_query.count, 0)
        )
        await self._apply()

    async def _apply(self) -> None:
        list_query = self._list_query
        page = list_query.start // list_query.count + 1
        query = {
            "search": list_query.search,
            "order": list_query.order,
            "state": list_query.state,
            "page": page if page > 1 else "",
        }
        text = urlencode({name: value for name, value in query.items() if value})
        ui.navigate.history.replace(self._kind.path + (f"?{text}" if text else ""))
        await self.refresh()

    async def _read(self) -> tuple[Markup, int]:
        requested = self._list_query
        content, total, list_query = await self._context.read(lambda session: part(session, self._kind, requested))
        if self._list_query is requested:  # false if the visitor has changed the query during the read
            self._list_query = list_query
        return content, total

    def _show(self, content: Markup, total: int) -> None:
        list_query = self._list_query
        if content != self._shown:
            self._table.set_content(content)
            self._shown = content
        last = min(list_query.start + list_query.count, total)
        self._range.set_text(_range(list_query.start, last, total, self._kind.things))
        self._back.set_visibility(list_query.start > 0)
        self._next.set_visibility(last < total)


def part(session: Session, kind: Kind[T], list_query: ListQuery) -> tuple[Markup, int, ListQuery]:
    """Rows of a list, the total, and the query of the shown page; a page after the last becomes the last page."""
    found = kind.find(session, list_query)
    if not found.rows and list_query.start:
        list_query = replace(list_query, start=max(found.total - 1, 0) // list_query.count * list_query.count)
        found = kind.find(session, list_query)
    if found.rows:
        return table(kind.columns, [kind.row(row) for row in found.rows], kind.things), found.total, list_query
    if list_query.search or list_query.state:
        return empty(f"No {kind.things} found", "Search for other words, or show all."), found.total, list_query
    return empty(f"No {kind.things} yet", kind.nothing), found.total, list_query


def _range(start: int, last: int, total: int, things: str) -> str:
    """The range of shown rows, e.g. `1 to 25 of 100 models`."""
    if total <= ListQuery.count and start == 0:
        return f"{total} {things.removesuffix('s') if total == 1 else things}" if total else ""
    return f"{start + 1:,} to {last:,} of {total:,} {things}"
