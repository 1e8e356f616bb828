"""The first step of adding a model: a place for files, and a line that says how the dropped file fares."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from markupsafe import Markup
from nicegui import ui

from app.errors import ZooError
from app.web.forms.drop_zone import file_line
from app.web.forms.receiving import document_of
from app.web.frame import markup
from app.web.html import size
from app.web.page_context import PageContext
from pnc_core.networks.names import AVERAGED, PLAIN

FILE, PUBLISHED = "A file of mine", "A published network"
_ZONE = Markup(
    '<label class="dropzone" data-keys="{}" data-outline="{}" data-weights="{}"><input type="file" multiple '
    'aria-label="Weights"><strong>Drop a file of weights here, or choose one</strong><span>.pth, .pt, .th, .ckpt, '
    ".bin, .safetensors: any file that torch.save or safetensors wrote. A description (.json) or a list of classes "
    "(.txt) may come with it.</span></label>"
)


class Weights:
    """The place to drop files.

    Args:
        context: Context of the page.
        begun: Called when the browser begins to read a file.
        outlined: Called with a file's outline (None: texts alone) and the texts beside it; returns a sentence.
        received: Called with the weights when they have arrived.
        stopped: Called when the browser cannot read or send a file.
    """

    def __init__(
        self,
        context: PageContext,
        begun: Callable[[], None],
        outlined: Callable[[dict[str, Any] | None, dict[str, Any]], Awaitable[str]],
        received: Callable[[Any], Awaitable[None]],
        stopped: Callable[[], None],
    ) -> None:
        self._context, self._begun, self._outlined, self._received = context, begun, outlined, received
        self._stopped = stopped
        self.outline: dict[str, Any] | None = None
        """The outline of the file that was dropped last."""
        self.name, self.bytes, self.turn = "", 0, 0

    def build(self, switched: Callable[[bool], None]) -> None:
        """Add the parts to the page; `switched` is told whether the visitor wants a published network."""
        self._kind = ui.radio([FILE, PUBLISHED], value=FILE).props('inline aria-label="Where the weights are"')

        def change() -> None:
            self._file.set_visibility(self._kind.value == FILE)
            switched(self._kind.value == PUBLISHED)

        with ui.element("div").classes("offscreen").props("aria-hidden=true inert"):
            outline = ui.upload(auto_upload=True, on_upload=self._take)
            weights = ui.upload(auto_upload=True, on_upload=lambda event: self._received(event.file))
        with ui.element("div").classes("stack tight") as self._file:
            markup(_ZONE.format(json.dumps([*PLAIN, *AVERAGED]), outline.id, weights.id))
            self._line = markup(Markup(""))
        self._kind.on_value_change(change)
        ui.on("weights_begun", self._start)
        ui.on("weights_refused", self._refuse)

    def choose_published(self) -> None:
        """Show the fields of a published network."""
        self._kind.set_value(PUBLISHED)

    def send(self, plan: list[list[Any]], name: str) -> None:
        """Have the browser send the weights as a safetensors file of this name."""
        ui.run_javascript(f"pncDrop.add({json.dumps(plan)}, {json.dumps(name)})")

    def _start(self, event: Any) -> None:
        self.turn += 1
        self.outline, self.name, self.bytes = None, str(event.args["name"]), int(event.args["size"])
        self._begun()
        self._show("reading", "Your browser reads the file.")

    def _refuse(self, event: Any) -> None:
        name = str(event.args["name"])
        self.turn += 1
        if name == self.name:
            self.outline = None
        self._stopped()
        self._show("refused", str(event.args["text"]), name)

    async def _take(self, event: Any) -> None:
        turn = self.turn
        try:
            document = await document_of(event.file)
            outline, texts = document.get("outline"), document.get("texts") or {}
            most = self._context.zoo.settings.max_upload_bytes
            if outline is not None and self.bytes > most:
                self._show("refused", f"expected a file of at most {size(most)}, got {size(self.bytes)}")
                return
            if outline is not None:
                self.outline = outline
                self._show("reading", "The service compares names and shapes with the networks that it knows.")
            told = await self._outlined(outline, texts)
        except ZooError as error:
            if turn == self.turn:
                self.outline = None
                self._show("refused", str(error))
            return
        if turn == self.turn:
            self._show("taken", f"{told}. It is read; nothing of it is stored yet.")

    def _show(self, state: str, text: str, name: str | None = None) -> None:
        own = name in (None, self.name)
        self._line.set_content(file_line(state, self.name if name is None else name, self.bytes if own else 0, text))
