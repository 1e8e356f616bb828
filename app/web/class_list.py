"""Lists of class names: ten at a time, with a search field if there are more."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.models.classes import names_of
from app.models.tables import VersionRow
from app.web.frame import card, markup
from app.web.html import table
from app.web.page_context import PageContext
from pnc_core.class_names import ClassName, ClassNames

SHOWN = 10
"""Most classes that a page shows at once."""
MOST_LETTERS = 200
"""Maximum length of a search."""


@dataclass(frozen=True)
class Matches:
    """The first classes that a search finds."""

    shown: list[ClassName]
    total: int
    """Number of classes that the search finds."""
    text: str
    """The search."""

    @property
    def note(self) -> str:
        """`1,000 classes`, or `10 of 118 classes that hold 'dog'`."""
        held = f" that {'holds' if self.total == 1 else 'hold'} {self.text!r}" if self.text else ""
        if self.total > len(self.shown):
            return f"{len(self.shown)} of {self.total:,} classes{held}"
        return f"{self.total:,} {'class' if self.total == 1 else 'classes'}{held}"


def matches(names: ClassNames, text: str, most: int = SHOWN) -> Matches:
    """The first classes whose names hold every word of a text; without words, the first classes of the network."""
    text = text.strip()[:MOST_LETTERS]
    if not text:
        return Matches(list(islice(names.search(""), most)), len(names), text)
    found = list(names.search(text))
    return Matches(found[:most], len(found), text)


def search_field(label: str, change: Callable[[str], Any]) -> Any:
    """A field whose text is given to `change` a quarter of a second after the last key."""
    field = ui.input(placeholder="Name, other name or #number")
    field.props(f'outlined dense clearable debounce=250 maxlength={MOST_LETTERS} aria-label="{label}"')
    field.on_value_change(lambda event: change(str(event.value or "")))
    return field


class ClassList:
    """The section of a model's page that lists the classes of its newest version.

    Args:
        context: The visitor's page context.
        newest: Reads the newest version of the model.
    """

    def __init__(self, context: PageContext, newest: Callable[[Session], VersionRow]) -> None:
        self._context, self._newest = context, newest

    async def build(self) -> None:
        """Add the section to the page."""
        first = await self._find("")
        with card("Classes", "A job names a class by its name, another name or its number"):
            if first.total > SHOWN:
                search_field("Search classes", self._typed)
            self._list = markup(drawn(first)).props('aria-live="polite"')

    async def _typed(self, text: str) -> None:
        self._list.set_content(drawn(await self._find(text)))

    async def _find(self, text: str) -> Matches:
        return await self._context.read(lambda session: matches(names_of(self._newest(session)), text))


def drawn(found: Matches) -> Markup:
    """The classes as a table, and their number."""
    rows = [[f"#{name.number}", name.name, ", ".join(name.aliases)] for name in found.shown]
    listed = table(["Number", "Class", "Other names"], rows, "Classes") if rows else Markup("")
    return Markup('{}<p class="faint rest">{}</p>').format(listed, found.note)
