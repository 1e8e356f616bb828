"""The section of a record's page that archives, restores and purges it. A purge asks for confirmation first."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.db.tables import Archivable
from app.errors import ZooError
from app.lifecycle import purges
from app.lifecycle.purges import Find, Purge, StoredObject
from app.web.frame import button, markup, tell
from app.web.html import facts, problem, size, title
from app.web.page_context import PageContext

_HINT = "Lists leave out archived records, and new work cannot use them. Running jobs and deployments keep using them."
_FATES = {"stored": "will be deleted", "gone": "deleted already", "left": "left to the next garbage collection"}


@dataclass(frozen=True)
class ArchivePanel:
    """The section, and its dialog that confirms a purge."""

    context: PageContext
    find: Find
    """Reads the record, also after a purge."""
    set_archived: Callable[[Session, bool], Archivable]
    """Archives or restores the record."""
    home: str
    """Path of the list that is shown after a purge."""

    def build(self, archived: bool) -> None:
        """Add the section to the page.

        Args:
            archived: Whether the record is archived now.
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
    """The content of the dialog: the records and objects that a purge deletes, and its blockers."""
    rows = {
        "Records": ", ".join(planned.rows),
        "Objects": Markup("<br/>").join(_object(stored) for stored in planned.objects) or "none",
    }
    blockers = Markup("").join(problem(blocker.detail) for blocker in planned.obstacles)
    warning = blockers or Markup(
        "<p>A purge cannot be undone: neither the records nor the objects can be restored.</p>"
    )
    return Markup("{}{}{}").format(title(f"Purge {planned.name}?"), facts(rows), warning)


def _object(stored: StoredObject) -> Markup:
    fate = f"stays: {stored.kept_by} has the same bytes" if stored.kept_by else _FATES[stored.fate]
    return Markup("<code>{}…</code> {}, {}").format(stored.digest[:12], size(stored.bytes), fate)
