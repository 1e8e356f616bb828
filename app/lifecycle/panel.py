"""Archive, restore and purge on a thing's own page; nothing goes before the visitor has seen what would."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.db.tables import Archivable
from app.errors import ZooError
from app.lifecycle import purges
from app.lifecycle.purges import Bytes, Find, Purge
from app.web.frame import button, markup, tell
from app.web.html import facts, problem, size, title
from app.web.page_context import PageContext

_HINT = "What is archived leaves the lists and takes no new work; what runs or is served goes on."
_FATES = {"stored": "would go", "gone": "gone already", "left": "left to the next sweep"}


@dataclass(frozen=True)
class ArchivePanel:
    """The part of a page that puts its thing away, and the question before a purge."""

    context: PageContext
    find: Find
    """Looks the thing up."""
    set_archived: Callable[[Session, bool], Archivable]
    """Archives it, or restores it."""
    home: str
    """Path of the list to go to when it is gone."""

    def build(self, archived: bool) -> None:
        """Put the part on the page.

        Args:
            archived: As the thing is now.
        """
        with ui.element("section").classes("card"):
            markup(title("Archive", _HINT))
            with ui.element("div").classes("actions"):
                button("Restore" if archived else "Archive", on_click=lambda: self._move(not archived))
                if archived:
                    button("Purge …", on_click=self._ask, kind="danger")

    async def _move(self, archived: bool) -> None:
        try:
            await self.context.write(lambda session: self.set_archived(session, archived))
        except ZooError as error:
            tell(error)
            return
        ui.navigate.reload()

    async def _ask(self) -> None:
        try:
            planned = await self.context.work(lambda zoo: purges.plan(zoo, self.find))
        except (ZooError, OSError) as error:
            tell(error)
            return
        with ui.dialog() as dialog, ui.element("div").classes("card stack tight").props('role="dialog"') as card:
            card.props(f'aria-label="Purge {planned.name}"')
            markup(shown(planned))
            with ui.element("div").classes("actions"):
                if not planned.obstacles:
                    button("Purge for good", on_click=self._purge, kind="danger")
                button("Close", on_click=dialog.close)
        dialog.open()

    async def _purge(self) -> None:
        try:
            await self.context.work(lambda zoo: purges.purge(zoo, self.find), "admin")
        except (ZooError, OSError) as error:
            tell(error)
            return
        ui.navigate.to(self.home)


def shown(planned: Purge) -> Markup:
    """What would go and what stands in the way, in words."""
    rows = {
        "Goes": ", ".join(planned.rows),
        "Bytes": Markup("<br/>").join(_object(one) for one in planned.objects) or "none",
    }
    in_the_way = Markup("").join(problem(one.detail) for one in planned.obstacles)
    warning = in_the_way or Markup("<p>This cannot be taken back: neither the rows nor the bytes return.</p>")
    return Markup("{}{}{}").format(title(f"Purge {planned.name}?"), facts(rows), warning)


def _object(one: Bytes) -> Markup:
    fate = f"stay: {one.kept_by} has the same" if one.kept_by else _FATES[one.fate]
    return Markup("<code>{}…</code> {}, {}").format(one.digest[:12], size(one.bytes), fate)
