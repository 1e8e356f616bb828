"""A place to drop one file, and a line that says how the file fares; the line stays until the next file."""

from collections.abc import Awaitable, Callable
from typing import Any

from markupsafe import Markup
from nicegui import ui

from app.errors import ZooError
from app.web.frame import markup
from app.web.html import size

_LINE = Markup(
    '<div class="fileline {}" role="status"><i aria-hidden="true">{}</i><span><strong>{}</strong> {}<br>{}</span></div>'
)
_STATES = {"reading": ("live", "●"), "taken": ("good", "✓"), "refused": ("bad", "✕")}
_ZONE = Markup(
    '<label class="dropzone" data-uploader="{}" data-most="{}"><input type="file" accept="{}" aria-label="{}">'
    "<strong>{}</strong><span>{}</span></label>"
)
_SCRIPT = """<script>(() => {
  const take = (zone, file) => {
    if (!file) return;
    const told = {name: file.name, size: file.size};
    if (file.size > Number(zone.dataset.most)) return emitEvent("file_too_large", told);
    emitEvent("file_begun", told);
    const uploader = getElement(Number(zone.dataset.uploader)).$refs.qRef;
    uploader.reset();
    uploader.addFiles([file]);
  };
  const zoneOf = (event) => event.target.closest && event.target.closest(".dropzone[data-uploader]");
  document.addEventListener("change", (event) => {
    const zone = zoneOf(event);
    if (!zone) return;
    take(zone, event.target.files[0]);
    event.target.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
    const zone = zoneOf(event);
    if (zone) zone.classList.toggle("over", kind === "dragover");
    if (kind !== "dragleave") event.preventDefault();  // a file dropped beside it must not replace the page
    if (zone && kind === "drop") take(zone, event.dataTransfer.files[0]);
  });
})();</script>"""


def file_line(state: str, name: str, bytes: int, text: str) -> Markup:
    """How a file fares.

    Args:
        state: `reading`, `taken` or `refused`.
        name: Name of the file.
        bytes: Its size; 0: unknown.
        text: A sentence.
    """
    tone, sign = _STATES[state]
    return _LINE.format(tone, sign, name, f"· {size(bytes)}" if bytes else "", text)


class DropZone:
    """The place and the line; a page has one.

    Args:
        take: Called with NiceGUI's `FileUpload`; returns a sentence. A `ZooError` or an `OSError` refuses the file.
        most: Bytes of the largest file.
    """

    def __init__(self, take: Callable[[Any], Awaitable[str]], most: int) -> None:
        self._take, self._most = take, most
        self._name, self._bytes = "", 0

    def build(self, label: str, title: str, hint: str, accept: str) -> None:
        """Add the parts to the page.

        Args:
            label: Name of the field for screen readers.
            title: Text of the place.
            hint: A sentence below.
            accept: Kinds of files that the browser's dialog offers.
        """
        with ui.element("div").classes("offscreen").props("aria-hidden=true inert"):
            upload = ui.upload(auto_upload=True, on_upload=self._received)
        markup(_ZONE.format(upload.id, self._most, accept, label, title, hint))
        self._line = markup(Markup(""))
        ui.on("file_begun", self._begun)
        ui.on("file_too_large", self._too_large)
        ui.add_body_html(_SCRIPT)

    def _begun(self, event: Any) -> None:
        self._name, self._bytes = str(event.args["name"]), int(event.args["size"])
        self._show("reading", "The file is being sent and looked at.")

    def _too_large(self, event: Any) -> None:
        self._name, self._bytes = str(event.args["name"]), int(event.args["size"])
        self._show("refused", f"expected a file of at most {size(self._most)}, got {size(self._bytes)}")

    async def _received(self, event: Any) -> None:
        self._name, self._bytes = event.file.name, event.file.size()
        if event.file.size() > self._most:  # the browser's own limit can be bypassed
            self._show("refused", f"expected a file of at most {size(self._most)}, got {size(event.file.size())}")
            return
        try:
            self._show("taken", await self._take(event.file))
        except (ZooError, OSError) as error:
            self._show("refused", str(error))

    def _show(self, state: str, text: str) -> None:
        self._line.set_content(file_line(state, self._name, self._bytes, text))
