"""`/deployments/NAME`: a deployment's modules, revisions and load, and a form that classifies an image."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.db.isolation import qualified
from app.db.pages import Window
from app.deployments import replicas
from app.deployments import service as deployments
from app.deployments.canary.page import CanaryPanel
from app.deployments.history import Hour, chart
from app.deployments.list_page import state
from app.deployments.load import Load, SharedMetrics
from app.deployments.replicas import Observation
from app.deployments.service import Change
from app.deployments.snippets import shown, snippets
from app.deployments.tables import DeploymentRow, RevisionRow
from app.deployments.tried import tried
from app.errors import NotFound, ZooError
from app.modules.tables import ModuleRow
from app.process.threads import PAGES
from app.web import catalogue
from app.web.forms.drop_zone import DropZone
from app.web.frame import button, card, frame, heading, markup, missing, notify, tell
from app.web.html import (
    ago,
    badge,
    chips,
    command,
    empty,
    id_link,
    link,
    model_link,
    more,
    percent,
    problem,
    section,
    short,
    title,
)
from app.web.page_context import PageContext
from pnc_client.schemas.deployments import PLAIN_SCALES

REFRESH_SECONDS = 2.0
HISTORY_SECONDS = 10.0
"""Time after which the chart of the last hour is read again."""
MODULES, REVISIONS = 50, 20
"""Numbers of modules and revisions that are shown, newest first."""
_GONE = "The deployment stops answering, and its revisions cannot be restored. Its model and modules stay."
_METRICS = SharedMetrics()
_FEW = 6
"""Number of classes that are shown for a revision."""


@dataclass(frozen=True)
class View:
    """The data that the page shows at one moment."""

    row: DeploymentRow
    wanted: RevisionRow
    """The desired revision."""
    modules: list[ModuleRow]
    """Attached modules, then the newest others that fit the target."""
    more_modules: int
    """Number of fitting modules that are not in `modules`."""
    revisions: list[RevisionRow]
    """The newest revisions."""
    more_revisions: int
    """Number of older revisions."""
    replicas: dict[str, Observation | None]
    """By replica: its report about the deployment; None: it has not reported on the deployment yet."""


@ui.page("/deployments/{name}")
async def deployment_page(request: Request, name: str) -> Response | None:
    """The page of one deployment."""
    context = PageContext.of(request)
    try:
        view = await context.read(lambda session: load_view(session, name))
    except NotFound as error:
        return missing(request, error, "/deployments")
    with frame(request, name, "/deployments"):
        await _Live(context, name, view, str(request.base_url).rstrip("/")).build()
    return None


def load_view(session: Session, name: str) -> View:
    """A deployment with its revisions and the modules that fit its target.

    Raises:
        NotFound: there is no deployment with this name.
    """
    row = deployments.get(session, name)
    wanted = deployments.revision(session, row)
    attached = [a.module for a in wanted.attachments]
    found, more_modules = catalogue.fitting(session, wanted, MODULES)
    newest = deployments.list_revisions(session, row, Window(REVISIONS))
    more_revisions = deployments.count_revisions(session, row) - REVISIONS if newest.has_more else 0
    reported = replicas.observations(session, name)
    return View(row, wanted, [*attached, *found], more_modules, list(newest.data), more_revisions, reported)


class _Live:
    """The elements of the page, refreshed while the page is open."""

    def __init__(self, context: PageContext, name: str, view: View, base: str) -> None:
        self._context, self._name, self._view, self._base = context, name, view, base
        self._place = qualified(context.caller.workspace, name)
        self._load = Load(self._place)
        self._hour_at = -HISTORY_SECONDS
        """Time of the last reading of the chart on the monotonic clock."""
        self._image: bytes | None = None
        self._busy = False
        self._canary = CanaryPanel(name, self._change)

    async def build(self) -> None:
        with ui.element("div").classes("bench"):
            self._head = markup(Markup(""))
            with ui.element("div").classes("actions"):
                button("Stop serving …", on_click=self._ask, kind="danger")
        with ui.element("div").classes("columns"):
            with ui.element("div").classes("stack"):
                with ui.element("section").classes("card"):
                    hint = "Attach or detach a module while the deployment serves. The target's weights never change."
                    markup(title("Modules", hint))
                    self._switches = ui.element("div")
                self._canary.build()
                with card("Try it"):
                    self._try()
                with card("Use it", "Requests to this deployment, ready to copy"):
                    self._snippets()
            with ui.element("div").classes("stack"):
                self._numbers = markup(self._load.tiles())
                self._hour = markup(Markup(""))
                self._replicas = markup(Markup(""))
                with ui.element("section").classes("card"):
                    markup(title("Revisions", "Each change makes a revision. Every served revision can be restored."))
                    self._revisions = ui.element("div")
        self._draw()
        await self._read_load()
        ui.timer(REFRESH_SECONDS, self.refresh, immediate=False)

    async def refresh(self) -> None:
        """Read the deployment and the metrics again, and redraw what changed."""
        await self._read_load()
        try:
            newer = await self._context.read(lambda session: load_view(session, self._name))
        except NotFound:
            ui.navigate.to("/deployments")
            return
        changed = _summary(newer) != _summary(self._view)
        self._view = newer
        if changed and not self._busy:
            self._draw()
        else:
            self._canary.show_counts(newer.wanted)

    async def _read_load(self) -> None:
        text = await _METRICS.text(lambda: self._context.serving.fetch("GET", "metrics"))
        await PAGES.run(self._load.read, text, time.monotonic())
        self._numbers.set_content(self._load.tiles())
        if time.monotonic() - self._hour_at >= HISTORY_SECONDS:
            self._hour_at = time.monotonic()
            answer = await self._context.serving.fetch("GET", "internal", "history", *self._place.split("/"))
            self._hour.set_content(chart(Hour.read(*answer)))

    def _draw(self) -> None:
        self._head.set_content(_head(self._view))
        self._replicas.set_content(_replicas(self._view))
        attached = {a.module_id for a in self._view.wanted.attachments}
        self._switches.clear()
        with self._switches:
            if not self._view.modules:
                markup(empty("No module fits this target yet", _clone_one(self._view)))
            for module in self._view.modules:
                self._switch(module, module.id in attached)
            markup(_balance(self._view.wanted))
            markup(_more_modules(self._view))
        self._canary.draw(self._view.wanted, self._view.modules)
        self._revisions.clear()
        with self._revisions:
            for revision in self._view.revisions:
                self._revision(revision)
            markup(more(self._view.more_revisions, command("pnc deployments revisions", self._name)))

    def _snippets(self) -> None:
        """A tab for each language."""
        size = self._view.wanted.version.spec["input_size"]
        found = snippets(self._base, self._name, size, with_key=self._context.zoo.settings.require_keys)
        with ui.tabs().props('dense no-caps align=left aria-label="Language"') as tabs:
            for language in found:
                ui.tab(language)
        with ui.tab_panels(tabs, value=next(iter(found))).props("keep-alive"):
            for language, text in found.items():
                with ui.tab_panel(language):
                    markup(shown(text, language))
        if self._context.zoo.settings.require_keys:
            made = Markup('<p class="hint plain">{}</p>').format(
                Markup("Put a key into <code>PNC_API_KEY</code>; make one on {}.").format(
                    link("/keys", "the page of keys")
                )
            )
            markup(made)

    def _switch(self, module: ModuleRow, is_attached: bool) -> None:
        with ui.element("div").classes("switchrow"):
            markup(
                Markup('<div>{}<div class="sub">from {} {} {}</div></div>').format(
                    chips(module.classes, 12),
                    model_link(module.source_version.ref),
                    id_link(f"/modules/{module.id}", module.id),
                    percent(module.manifest.get("validation", {}).get("average")),
                )
            )
            switch = ui.switch(value=is_attached).props(f'aria-label="Attach {module.id}"')
            switch.on_value_change(lambda event: self._flip(module.id, bool(event.value)))

    def _revision(self, revision: RevisionRow) -> None:
        is_now = revision.generation == self._view.row.generation
        names = [name for a in revision.attachments for name in a.module.classes[:_FEW]]
        with ui.element("div").classes("switchrow"):
            what = chips(names, _FEW) if names else Markup('<span class="faint">target alone</span>')
            beside = badge(revision.canary.mode) if revision.canary else ""
            mark = badge("refused") if revision.refused else badge(state(self._view.row)) if is_now else ""
            markup(
                Markup('<div><strong>{}</strong> {}<div class="sub">{} {} {}</div></div>').format(
                    revision.generation, what, mark, beside, ago(revision.created_at)
                )
            )
            if not is_now and not revision.refused:
                restore = button("Restore", on_click=self._restoring(revision.generation))
                restore.props(f'aria-label="Restore generation {revision.generation}"')

    def _restoring(self, generation: int) -> Callable[[], Any]:
        return lambda: self._change(lambda session: deployments.rollback(session, self._name, generation))

    async def _flip(self, module: str, attach: bool) -> None:
        work = deployments.attach if attach else deployments.detach
        await self._change(lambda session: work(session, self._name, module))

    async def _change(self, work: Callable[[Session], Change]) -> None:
        self._busy = True
        try:
            refusal = await self._context.roll_out(work)
            if refusal is not None:
                notify(refusal, good=False)
        except ZooError as error:
            tell(error)
        finally:
            self._busy = False
        self._view = await self._context.read(lambda session: load_view(session, self._name))
        self._draw()
        if self._image is not None:
            await self._answer(self._image)

    def _ask(self) -> None:
        with ui.dialog() as dialog, ui.element("div").classes("card stack tight").props('role="dialog"') as card:
            card.props(f'aria-label="Stop serving {self._name}"')
            markup(title(f"Stop serving {self._name}?", _GONE))
            with ui.element("div").classes("actions"):
                button("Stop for good", on_click=self._delete, kind="danger")
                button("Close", on_click=dialog.close)
        dialog.open()

    async def _delete(self) -> None:
        def work(session: Session) -> int:
            return deployments.delete(session, self._name)

        generation = await self._context.write(work, "deploy")
        await self._context.announce(self._name, generation)
        ui.navigate.to("/deployments")

    def _try(self) -> None:
        async def take(file: Any) -> str:
            self._image = await file.read()
            await self._answer(self._image)
            return "The answers are below."

        zone = DropZone(take, self._context.zoo.settings.max_image_bytes)
        hint = "PNG, JPEG, WebP and other images."
        zone.build("Image", "Drop an image here, or choose one", hint, "image/*")
        self._answers = markup(
            Markup('<p class="faint">Compares the target alone with the target and its modules.</p>')
        )

    async def _answer(self, image: bytes) -> None:
        began = time.perf_counter()
        sets = ["modules=", "module_set=main", *(["module_set=canary"] if self._view.wanted.canary else [])]
        try:
            answers = await asyncio.gather(*(self._context.classify(self._name, image, query) for query in sets))
        except ZooError as error:
            tell(error)
            return
        took = time.perf_counter() - began
        self._answers.set_content(await PAGES.run(tried, image, answers, took))


def _summary(view: View) -> tuple[object, ...]:
    """The values that the page shows; it is redrawn when they change."""
    row, modules = view.row, tuple(m.id for m in view.modules)
    reported = tuple(sorted((name, str(observation)) for name, observation in view.replicas.items()))
    return row.generation, row.observed_generation, str(row.observed_problem), reported, modules


def _head(view: View) -> Markup:
    row = view.row
    fault = problem(row.observed_problem.get("detail", "no reason given")) if row.observed_problem else ""
    note = Markup("{} serving {} <span class='faint'>generation {}</span>").format(
        badge(state(row)), model_link(view.wanted.version.ref), row.generation
    )
    return Markup("{}{}").format(heading(row.name, "Deployment", note), fault)


def _replicas(view: View) -> Markup:
    """The generation of the deployment that each replica serves."""
    if not view.replicas:
        content = empty("No serving process is alive", "Start one with pnc up, or with pnc serve on another host.")
        return section("Replicas", content)
    rows = Markup("").join(
        Markup('<div class="switchrow"><span>{}</span><span>{}</span></div>').format(
            short(name), _replica_state(observation, view.row.generation)
        )
        for name, observation in sorted(view.replicas.items())
    )
    return section("Replicas", rows, "Running serving processes, and the generation that each serves")


def _replica_state(observation: Observation | None, wanted: int) -> Markup:
    if observation is None:
        return badge("changing")
    here = "failed" if observation.problem else "served" if observation.generation == wanted else "changing"
    return Markup('<span class="faint">generation {}</span> {}').format(observation.generation, badge(here))


def _balance(wanted: RevisionRow) -> Markup:
    """How the logits of several attached modules are balanced; empty for fewer modules."""
    if wanted.composition_id is not None:
        return Markup('<p class="hint plain">Balanced by the composition {}.</p>').format(wanted.composition_id)
    if len(wanted.attachments) < 2:
        return Markup("")
    return Markup('<p class="hint plain">{}.</p>').format(PLAIN_SCALES[0].upper() + PLAIN_SCALES[1:])


def _more_modules(view: View) -> Markup:
    fingerprint, name = view.wanted.version.fingerprint or "", view.row.name
    where = Markup("{}; attach one with {}").format(
        command("pnc modules list --fingerprint", fingerprint), command("pnc deployments attach", name, "MODULE")
    )
    return more(view.more_modules, where)


def _clone_one(view: View) -> Markup:
    return Markup('<a href="/new?target={}">Clone some classes</a> into {} first.').format(
        view.wanted.version.model.name, view.wanted.version.ref
    )
