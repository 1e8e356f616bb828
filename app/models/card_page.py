"""A model's card: what its owner says about it, in Markdown."""

from dataclasses import dataclass
from functools import lru_cache

from markdown_it import MarkdownIt
from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.errors import ZooError
from app.models import service as models
from app.models.card import prose
from app.process.threads import TEXTS
from app.web.frame import button, markup, tell
from app.web.html import empty, title
from app.web.page_context import PageContext
from pnc_client.schemas.models import MAX_DESCRIPTION

# HTML is shown as text, links to scripts are no links; pictures, which would come from elsewhere, are left out.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
_BELOW = 2
"""The first heading of a card comes below the page's title and the section's."""


_MOST_CELLS = 5000
"""Rows of a table are filled up to the width of its head, so that a few characters become thousands of cells."""


@lru_cache(64)
def rendered(card: str) -> Markup:
    """A card as HTML without scripts, pictures and unsafe links. Call it on a thread: it can take half a second.

    A card that would take seconds is shown as it was written.
    """
    text = prose(card)
    if len(text) > MAX_DESCRIPTION or _cells(text) > _MOST_CELLS:
        return Markup("<pre>{}</pre>").format(text)
    tokens = _MARKDOWN.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + _BELOW, 6)}"
        for link in token.children or ():
            if link.type == "link_open":
                link.attrSet("rel", "noopener nofollow")
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))  # noqa: S704 - escaped by the renderer


def _cells(text: str) -> int:
    """Upper bound of the cells of all tables: no table has more columns than a line has bars, plus one."""
    lines = text.splitlines()
    return len(lines) * max((line.count("|") + 1 for line in lines if "|" in line), default=0)


@dataclass(frozen=True)
class Card:
    """The part of a model's page that shows its card, and lets the visitor write it."""

    context: PageContext
    name: str
    """Of the model."""

    async def build(self, card: str) -> None:
        """Put the part on the page.

        Args:
            card: As it is now.
        """
        shown = await TEXTS.run(rendered, card) if card else None
        with ui.element("section").classes("card"):
            markup(title("Card"))
            if shown is not None:
                markup(shown).classes("prose")
            else:
                markup(empty("No card yet", "Say what it was trained on, what it is good for, and what it is not."))
            with ui.element("div").classes("actions"):
                button("Edit the card", on_click=lambda: self._edit(card))

    def _edit(self, card: str) -> None:
        with (
            ui.dialog() as dialog,
            ui.element("div").classes("card stack wide").props('role="dialog" aria-label="Edit the card"'),
        ):
            markup(title("Edit the card", "Markdown; its first line stands below the model's name."))
            text = ui.textarea("Card", value=card)
            text.props(f"outlined autogrow input-class=mono maxlength={MAX_DESCRIPTION}").classes("full")
            with ui.element("div").classes("actions"):
                button("Save", on_click=lambda: self._save(text.value or ""), kind="go")
                button("Close", on_click=dialog.close)
        dialog.open()

    async def _save(self, card: str) -> None:
        def work(session: Session) -> None:
            models.change(session, self.name, description=card[:MAX_DESCRIPTION])

        try:
            await self.context.write(work)
        except ZooError as error:
            tell(error)
            return
        ui.navigate.reload()
