"""The part of the list of models that shows the newest imports."""

from dataclasses import dataclass

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.db.pages import Window
from app.imports import service as imports
from app.imports.tables import ENDED, ImportRow
from app.web.frame import markup
from app.web.html import ago, badge, link, percent, table
from app.web.page_context import PageContext

REFRESH_SECONDS = 2.0
SHOWN = 5
"""Imports that are shown at most."""


@dataclass(frozen=True)
class ImportPart:
    """Shows the newest imports.

    Args:
        context: Context of the page.
    """

    context: PageContext

    async def build(self) -> None:
        """Put the newest imports on the page; without imports the part is empty."""
        place = markup(await self._rows())

        async def refresh() -> None:
            place.set_content(await self._rows())

        ui.timer(REFRESH_SECONDS, refresh, immediate=False)

    async def _rows(self) -> Markup:
        return await self.context.read(shown)


def shown(session: Session) -> Markup:
    """The newest imports as a table, if one of them has not succeeded."""
    rows = imports.list_imports(session, Window(SHOWN)).data
    if all(row.state == "succeeded" for row in rows):
        return Markup("")
    return table(["Import", "Model", "State", "#Progress", "Message", "Submitted"], map(_row, rows), "Imports")


def _row(row: ImportRow) -> list[object]:
    model = link(f"/models/{row.model}", row.model) if row.version_id else row.model
    progress = "" if row.state in ENDED else percent(row.progress)
    return [row.source, model, badge(row.state), progress, row.message, ago(row.created_at)]
