"""The part of a model's page that points aliases at versions, and removes them."""

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.db.pages import Window
from app.errors import Invalid, ZooError
from app.models import service as models
from app.web.frame import button, card, markup, tell
from app.web.page_context import PageContext

MOST_VERSIONS = 100
"""Versions that can be chosen, newest first."""


class AliasPanel:
    """Fields that set an alias, and a list of the aliases with buttons that remove them.

    Args:
        context: Context of the page.
        name: Name of the model.
    """

    def __init__(self, context: PageContext, name: str) -> None:
        self._context, self._name = context, name

    async def build(self) -> None:
        """Add the section to the page."""
        numbers, known = await self._context.read(self._read)
        with card("Aliases", f"A job or a program can name {self._name}@production; you move the alias."):
            self._known = ui.element("div")
            with ui.element("div").classes("form"):
                alias = ui.input("Alias").props('outlined dense bottom-slots aria-label="Alias"')
                alias.props["hint"] = "A letter, then lower-case letters, digits and . _ -"
                version = ui.select(
                    {n: f"version {n}" for n in numbers}, label="Points at", value=numbers[0] if numbers else None
                )
                version.props('outlined dense options-dense aria-label="Points at"')

            async def point() -> None:
                try:
                    await self._context.write(
                        lambda session: models.set_alias(
                            session, self._name, (alias.value or "").strip(), int(version.value or 0)
                        )
                    )
                except Invalid as error:
                    alias.error = str(error)
                    return
                except ZooError as error:
                    tell(error)
                    return
                alias.error = None
                alias.set_value("")
                self._draw((await self._context.read(self._read))[1])

            with ui.element("div").classes("actions"):
                button("Set the alias", on_click=point)
        self._draw(known)

    def _read(self, session: Session) -> tuple[list[int], dict[str, int]]:
        versions = models.list_versions(session, self._name, Window(MOST_VERSIONS)).data
        model = models.get(session, self._name)
        session.refresh(model)
        return [version.number for version in versions], {row.alias: row.version.number for row in model.aliases}

    def _draw(self, known: dict[str, int]) -> None:
        self._known.clear()
        with self._known:
            for alias, number in known.items():
                with ui.element("div").classes("switchrow"):
                    markup(Markup("<div><strong>{}</strong> → version {}</div>").format(alias, number))
                    remove = button("Remove", on_click=lambda alias=alias: self._remove(alias))
                    remove.props(f'aria-label="Remove the alias {alias}"')

    async def _remove(self, alias: str) -> None:
        try:
            await self._context.write(lambda session: models.delete_alias(session, self._name, alias))
        except ZooError as error:
            tell(error)
            return
        self._draw((await self._context.read(self._read))[1])
