"""The part of the job form that chooses classes: ten tick boxes at a time, and a search field if there are more."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import NotFound
from app.models import service as models
from app.models.classes import names_of
from app.web.class_list import SHOWN, Matches, matches, search_field
from app.web.frame import markup, notify
from app.web.html import empty
from app.web.page_context import PageContext
from pnc_core.class_names import ClassNames
from pnc_core.errors import ConfigError

MOST_CHIPS = 20
"""Chosen classes that are shown."""
BETWEEN = ";"
"""Separates names that are entered together; names of classes may hold commas."""


@dataclass(frozen=True)
class Asked:
    """What the form has chosen so far."""

    source: str | None = None
    target: str | None = None
    dataset: str | None = None


@dataclass(frozen=True)
class Offer:
    """Classes of the source that the form shows, and facts about them."""

    found: Matches
    classes: int
    """Number of the source's classes; 0: no source is chosen."""
    taken: set[str] = field(default_factory=set)
    """Shown classes that the target has already."""
    images: dict[str, int] = field(default_factory=dict)
    """Images of each shown class in the dataset; empty without a dataset."""


class ClassChoice:
    """Tick boxes for the source's classes.

    Args:
        context: The visitor's page context.
        changed: Called when the visitor has chosen other classes.
    """

    def __init__(self, context: PageContext, changed: Callable[[], Any]) -> None:
        self._context, self._changed = context, changed
        self._asked, self._text, self._has_more = Asked(), "", False
        self.chosen: list[str] = []
        """Names of the chosen classes, as the source has them."""

    def build(self) -> None:
        """Add the parts to the page; `show` fills them."""
        markup(Markup('<div class="faint">Classes to clone</div>'))
        self._field = search_field("Search classes", self._typed)
        self._field.props('hint="Enter adds the class of this name or number; separate several with ;"')
        self._field.on("keydown.enter", self._entered, js_handler="(event) => emit(event.target.value)")
        self._chips, self._ticks = ui.element("div").classes("chips"), ui.element("div")

    async def show(self, asked: Asked) -> None:
        """Show the classes of the source; a chosen class that it lacks is no longer chosen."""
        if asked.source != self._asked.source:
            self._text = ""
            self._field.set_value("")
        self._asked = asked
        chosen = self.chosen
        self.chosen = await self._context.read(lambda session: _kept(session, asked, chosen))
        await self._refresh()

    async def _refresh(self) -> None:
        asked, text = self._asked, self._text
        offer = await self._context.read(lambda session: offered(session, asked, text))
        if (asked, text) != (self._asked, self._text):
            return  # a later search shows its own classes
        self._has_more = offer.classes > SHOWN
        self._field.set_visibility(self._has_more)
        self._show_chips()
        self._ticks.clear()
        with self._ticks:
            if not offer.classes:
                markup(empty("Choose a source first", "Its classes are listed here."))
                return
            with ui.element("div").classes("ticks"):
                for name in offer.found.shown:
                    self._tick(name.name, offer)
            if self._has_more:
                markup(Markup('<p class="faint rest">{}</p>').format(offer.found.note))

    def _show_chips(self) -> None:
        self._chips.clear()
        if not self._has_more:
            return
        with self._chips:
            for name in self.chosen[:MOST_CHIPS]:
                chip = ui.chip(name, removable=True, color=None).props("dense")
                chip.on_value_change(lambda _, name=name: self._remove(name))
            rest = len(self.chosen) - MOST_CHIPS
            if rest > 0:
                markup(Markup('<span class="faint">and {:,} more</span>').format(rest))

    def _tick(self, name: str, offer: Offer) -> None:
        is_taken = name in offer.taken
        hint = "in target" if is_taken else f"{offer.images.get(name, 0):,}" if self._asked.dataset else ""
        box = ui.checkbox(f"{name}  ({hint})" if hint else name, value=name in self.chosen and not is_taken)
        box.props("dense").on_value_change(lambda event: self._choose(name, bool(event.value)))
        if is_taken:
            box.disable()

    async def _choose(self, name: str, is_chosen: bool) -> None:
        others = [other for other in self.chosen if other != name]
        self.chosen = [*others, name] if is_chosen else others
        self._show_chips()
        await self._changed()

    async def _remove(self, name: str) -> None:
        self.chosen = [other for other in self.chosen if other != name]
        await self._refresh()
        await self._changed()

    async def _typed(self, text: str) -> None:
        self._text = text
        await self._refresh()

    async def _entered(self, event: Any) -> None:
        texts = [text.strip() for text in str(event.args or "").split(BETWEEN) if text.strip()]
        asked = self._asked
        try:
            found = await self._context.read(lambda session: [_names(session, asked.source).find(t) for t in texts])
        except ConfigError as error:
            notify(str(error), good=False)
            return
        self.chosen = list(dict.fromkeys((*self.chosen, *found)))
        self._text = ""
        self._field.set_value("")
        await self._refresh()
        await self._changed()


def offered(session: Session, asked: Asked, text: str) -> Offer:
    """The first classes of the source that a search finds, with the target's classes and the dataset's images."""
    names = _names(session, asked.source)
    found = matches(names, text)
    shown = {name.name for name in found.shown}
    taken = shown.intersection(_classes(session, asked.target))
    try:
        counts = datasets.get(session, asked.dataset).counts if asked.dataset else {}
    except NotFound:
        counts = {}
    return Offer(found, len(names), taken, {name: counts.get(name, 0) for name in shown})


def _kept(session: Session, asked: Asked, chosen: list[str]) -> list[str]:
    """The chosen classes that the source has and the target lacks."""
    known = set(_classes(session, asked.source)).difference(_classes(session, asked.target))
    return [name for name in chosen if name in known]


def _classes(session: Session, ref: str | None) -> list[str]:
    try:
        return list(models.resolve(session, ref).spec["classes"]) if ref else []
    except NotFound:
        return []


def _names(session: Session, ref: str | None) -> ClassNames:
    try:
        return names_of(models.resolve(session, ref)) if ref else ClassNames(())
    except NotFound:
        return ClassNames(())
