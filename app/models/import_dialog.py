"""The part of the list of models that imports networks: a dialog, and the imports that have not ended."""

from dataclasses import dataclass

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.db.pages import Window
from app.errors import ZooError
from app.imports import service as imports
from app.imports.tables import ENDED, ImportRow
from app.web.frame import button, markup, notify, tell
from app.web.html import ago, badge, link, percent, table, title
from app.web.page_context import PageContext

REFRESH_SECONDS = 2.0
SHOWN = 5
"""Imports that are shown at most."""
_HINT = "torchvision/resnet18, timm/resnet18.a1_in1k, hf://owner/name"


@dataclass(frozen=True)
class ImportPart:
    """Starts imports and shows the newest ones.

    Args:
        context: Context of the page.
    """

    context: PageContext

    def dialog(self) -> ui.dialog:
        """The dialog that takes a source."""
        with (
            ui.dialog() as dialog,
            ui.element("div").classes("card stack tight").props('role="dialog" aria-label="Import a model"'),
        ):
            markup(title("Import a model", "A worker fetches weights, class names and preprocessing."))
            source = ui.input("Source").props(f'outlined dense hint="{_HINT}"').classes("full")
            name = ui.input("Name").props('outlined dense hint="empty: the last part of the source"').classes("full")

            async def submit() -> None:
                if await self.submit(source.value or "", name.value or ""):
                    dialog.close()
                    source.set_value("")
                    name.set_value("")

            with ui.element("div").classes("actions"):
                button("Import", on_click=submit, kind="go")
                button("Close", on_click=dialog.close, kind="plain")
        return dialog

    async def submit(self, source: str, name: str) -> bool:
        """Submit an import; returns whether the service accepted it."""
        hosts = self.context.zoo.settings.import_hosts

        def work(session: Session) -> str:
            return imports.submit(session, source=source.strip(), name=name.strip(), hosts=hosts).model

        try:
            model = await self.context.write(work)
        except ZooError as error:
            tell(error)
            return False
        notify(f"{model} is being imported")
        return True

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
