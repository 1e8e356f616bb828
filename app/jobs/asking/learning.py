"""The part of the job form that chooses classes: those of a source, or of all models while no source is chosen.

It shows ten tick boxes at a time, and a search field if there are more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import NotFound
from app.jobs.asking import proposing
from app.models import service as models
from app.models.classes import names_of
from app.web.class_list import SHOWN, Matches, matches, search_field
from app.web.frame import markup, notify
from app.web.html import empty
from app.web.page_context import PageContext
from pnc_core.class_names import ClassName, ClassNames
from pnc_core.errors import ConfigError, UnknownClass

MOST_CHIPS = 20
"""Chosen classes that are shown."""
BETWEEN = ";"
"""Separates names that are entered together; names of classes may hold commas."""


@dataclass(frozen=True)
class Asked:
    """What the form has chosen so far."""

    source: str | None = None
    """None: the classes of all models are offered."""
    target: str | None = None
    dataset: str | None = None


@dataclass(frozen=True)
class Offer:
    """Classes of the source that the form shows, and facts about them."""

    found: Matches
    classes: int
    """Number of the classes that are offered without a search."""
    taken: set[str] = field(default_factory=set)
    """Shown classes that the target has already."""
    images: dict[str, int] = field(default_factory=dict)
    """Images of each shown class in the dataset; empty without a dataset."""
    models: dict[str, list[str]] = field(default_factory=dict)
    """Models that have each shown class; empty if a source is chosen."""


class ClassChoice:
    """Tick boxes for classes that the target can learn.

    Args:
        context: The visitor's page context.
        changed: Called when the visitor has chosen other classes.
    """

    def __init__(self, context: PageContext, changed: Callable[[], Any]) -> None:
        self._context, self._changed = context, changed
        self._asked, self._text, self._has_more = Asked(), "", False
        self.chosen: list[str] = []
        """Names of the chosen classes, as their models have them."""

    def build(self) -> None:
        """Add the parts to the page; `show` fills them."""
        self._field = search_field("Search classes", self._typed)
        self._field.props('hint="Enter adds the class of this name or number; separate several with ;"')
        self._field.on("keydown.enter", self._entered, js_handler="(event) => emit(event.target.value)")
        self._chips, self._ticks = ui.element("div").classes("chips"), ui.element("div")

    async def show(self, asked: Asked) -> None:
        """Show the classes of the source or of all models; a chosen class that the source lacks, or that the target
        has, is no longer chosen.
        """
        if asked.source != self._asked.source:
            self._text = ""
            self._field.set_value("")
        self._asked = asked
        chosen = self.chosen
        self.chosen = await self._context.read(lambda session: _kept(session, asked, chosen))
        await self._refresh()

    async def _refresh(self) -> None:
        asked, text = self._asked, self._text
        chosen = tuple(self.chosen)
        offer = await self._context.read(lambda session: offered(session, asked, text, chosen))
        if (asked, text) != (self._asked, self._text):
            return  # a later search shows its own classes
        self._has_more = offer.classes > SHOWN or asked.source is None
        self._field.set_visibility(self._has_more)
        self._show_chips()
        self._ticks.clear()
        with self._ticks:
            if not offer.classes:
                markup(_nothing(asked, text, self.chosen))
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
        images = f"{offer.images.get(name, 0):,} images" if self._asked.dataset else ""
        hint = "in target" if is_taken else _of(offer.models[name]) if name in offer.models else images
        box = ui.checkbox(f"{name}  ({hint})" if hint else name, value=name in self.chosen and not is_taken)
        box.props("dense").on_value_change(lambda event: self._choose(name, bool(event.value)))
        if is_taken:
            box.disable()

    async def _choose(self, name: str, is_chosen: bool) -> None:
        others = [other for other in self.chosen if other != name]
        self.chosen = [*others, name] if is_chosen else others
        if self._asked.source is None:
            await self._refresh()  # models that lack a chosen class are no longer offered
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
            found = await self._context.read(lambda session: [_find(session, asked, text) for text in texts])
        except ConfigError as error:
            notify(str(error), good=False)
            return
        self.chosen = list(dict.fromkeys((*self.chosen, *found)))
        self._text = ""
        self._field.set_value("")
        await self._refresh()
        await self._changed()


def offered(session: Session, asked: Asked, text: str, chosen: tuple[str, ...] = ()) -> Offer:
    """The first classes that a search finds, with the target's classes and the dataset's images.

    Args:
        session: A session of the workspace.
        asked: The networks and the dataset.
        text: The search.
        chosen: Classes that are chosen already; without a source only models that have all of them count.
    """
    if asked.source is None:
        return _offered_by_all(session, asked, text, chosen)
    names = _names(session, asked.source)
    found = matches(names, text)
    shown = {name.name for name in found.shown}
    taken = shown.intersection(_classes(session, asked.target))
    try:
        counts = datasets.get(session, asked.dataset).counts if asked.dataset else {}
    except NotFound:
        counts = {}
    return Offer(found, len(names), taken, {name: counts.get(name, 0) for name in shown})


def _offered_by_all(session: Session, asked: Asked, text: str, chosen: tuple[str, ...]) -> Offer:
    """Classes of all models; the chosen ones come first."""
    try:
        found, total = proposing.learnable(session, asked.target, chosen, text, SHOWN)
    except NotFound:
        found, total = [], 0
    shown = [ClassName(0, one.name, ()) for one in found]
    having = {one.name: one.sources for one in found}
    return Offer(Matches(shown, total, text.strip()), total, models=having)


def _find(session: Session, asked: Asked, text: str) -> str:
    """The class that a text means.

    Raises:
        ConfigError: no class or several classes are called so.
    """
    if asked.source is not None:
        return _names(session, asked.source).find(text)
    name = proposing.find(session, asked.target, text)
    if name is None:
        raise UnknownClass(f"expected a class of one of the models, got {text!r:.80}; search for a part of its name")
    return name


def _of(models: list[str]) -> str:
    return f"of {models[0]}" if len(models) == 1 else f"of {len(models)} models"


def _nothing(asked: Asked, text: str, chosen: list[str]) -> Markup:
    if text:
        return empty("No class found", "Search for a part of another name.")
    if asked.source is None and asked.target is None:
        return empty("Choose a target first", "The classes of all other models are listed here.")
    if chosen:
        return empty("No further class", "No model has other classes beside the chosen ones.")
    advice = Markup('Other models need classes that the target lacks: <a href="/add">add a model</a>.')
    return empty("Nothing to learn", advice)


def _kept(session: Session, asked: Asked, chosen: list[str]) -> list[str]:
    """The chosen classes that the source has and the target lacks."""
    present, known = set(_classes(session, asked.target)), set(_classes(session, asked.source))
    return [name for name in chosen if name not in present and (asked.source is None or name in known)]


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
