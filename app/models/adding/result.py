"""The last part of adding a model: what became of it, from sending to the check on images."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import ZooError
from app.imports import service as imports
from app.imports.tables import ENDED
from app.models import checks
from app.models import service as models
from app.models.tables import VersionRow
from app.web.frame import button, markup
from app.web.html import badge, facts, link, model_link, percent, problem, version_badge
from app.web.page_context import PageContext

REFRESH_SECONDS = 1.0


class Result:
    """Shows a version, or an import until it has a version, until nothing changes any more.

    Args:
        context: Context of the page.
        apply: Called with a version's reference and the changes that its check proposes.
    """

    def __init__(self, context: PageContext, apply: Callable[[str, dict[str, Any]], Awaitable[None]]) -> None:
        self._context, self._apply = context, apply
        self._import: str | None = None
        self._ref: str | None = None
        self._dataset: str | None = None

    def build(self) -> None:
        """Add the part to the page; it is empty at first."""
        self._place = markup(Markup("")).props('aria-live="polite"')
        self._advice = ui.element("div")
        self._timer = ui.timer(REFRESH_SECONDS, self._refresh, active=False, immediate=False)

    def clear(self) -> None:
        """Forget the version that was shown."""
        self._timer.deactivate()
        self._import = self._ref = self._dataset = None
        self._advice.clear()
        self._place.set_content(Markup(""))

    def show(self, content: Markup) -> None:
        """Show a message."""
        self._place.set_content(content)

    def follow_version(self, ref: str) -> None:
        """Show a version that was added."""
        self.clear()
        self._ref = ref
        self._timer.activate()

    def follow_import(self, import_id: str, dataset: str | None) -> None:
        """Show an import and then its version, which is checked on a dataset."""
        self.clear()
        self._import, self._dataset = import_id, dataset
        self.show(facts({"State": badge("queued")}))
        self._timer.activate()

    async def _refresh(self) -> None:
        if self._ref is None:
            await self._read_import()
            return
        ref = self._ref
        version = await self._context.read(lambda session: models.resolve(session, ref))
        if self._dataset is not None and version.status == "ready":
            await self._ask(version, self._dataset)
            return
        if ref != self._ref:
            return  # the visitor has begun anew
        self.show(_version(version))
        if version.status != "validating" and version.checking is None:
            self._timer.deactivate()
            self._propose(version)

    async def _read_import(self) -> None:
        asked = self._import
        if asked is None:
            return

        row = await self._context.read(lambda session: imports.get(session, asked))
        if row.version_ref is not None:
            self._ref = row.version_ref
            return
        fault = problem(row.message) if row.state == "failed" else Markup("")
        about = {"State": badge(row.state), "Progress": percent(row.progress), "Message": row.message}
        self.show(fault or facts(about))
        if row.state in ENDED:
            self._timer.deactivate()

    async def _ask(self, version: VersionRow, dataset: str) -> None:
        """Have an imported version checked."""
        self._dataset = None

        def work(session: Session) -> None:
            row = models.resolve(session, version.id)
            checks.ask(session, row.model.name, row.number, datasets.get(session, dataset))

        try:
            await self._context.write(work)
        except ZooError as error:
            self._timer.deactivate()
            self.show(_version(version) + problem(str(error)))

    def _propose(self, version: VersionRow) -> None:
        """Offer the changes with which a suspect network is more accurate."""
        cause = (version.check or {}).get("cause")
        if not cause:
            return
        changes: dict[str, Any] = cause["changes"]
        with self._advice:
            after, before = percent(cause["after"]), percent(cause["before"])
            text = f"With {cause['title']} the accuracy is {after} instead of {before}."
            markup(Markup('<p class="hint plain">{}</p>').format(text))
            button("Use these values", on_click=lambda: self._apply(version.ref, changes), kind="go")


def _version(version: VersionRow) -> Markup:
    """A version, its state and its check."""
    name = version.model.name
    rows: dict[str, object] = {"Added": model_link(version.ref), "State": version_badge(version)}
    if version.status == "validating":
        rows["Next"] = "a worker builds the network and tries it"
    elif version.checking:
        rows["Check"] = "a worker measures the accuracy on the images"
    elif version.check and version.check.get("accuracy") is not None:
        check = version.check
        rows["Accuracy"] = (
            f"{percent(check['accuracy'])} of {check['images']:,} images ({100 * check['low']:.0f} to "
            f"{100 * check['high']:.0f} % with 95 % certainty; chance {percent(check['chance'])})"
        )
    elif version.check:
        rows["Check"] = version.check.get("detail", "")
    elif version.status == "ready":
        rows["Check"] = "none: no dataset of the workspace has images of all its classes"
    reason = (version.problem or {}).get("detail")
    fault = problem(str(reason)) if version.status == "rejected" else Markup("")
    quoted = quote(name)
    on = Markup('<div class="actions after">{}{}</div>').format(
        link(f"/models/{quoted}", "Open the model", "button"),
        link(f"/new?target={quoted}", "Teach it classes", "button"),
    )
    return Markup("{}{}{}").format(fault, facts(rows), on if version.status == "ready" else Markup(""))
