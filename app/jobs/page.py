"""`/jobs/ID`: a cloning job, its progress, trials, events and result."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.errors import NotFound, ZooError
from app.jobs import service as jobs
from app.jobs.events import Head, heads
from app.jobs.states import TERMINAL, TRANSITIONS
from app.jobs.tables import EventRow, JobRow, TrialRow
from app.modules.accuracy import accuracy_section
from app.web.drawing import position_plot
from app.web.frame import button, frame, heading, markup, missing, tell
from app.web.html import (
    ago,
    badge,
    chips,
    count,
    duration,
    empty,
    facts,
    id_link,
    identifier,
    link,
    model_link,
    percent,
    problem,
    section,
    size,
    table,
)
from app.web.page_context import PageContext
from app.web.words import term
from pnc_client.schemas.jobs import newest_trials

REFRESH_SECONDS = 0.7
EVENTS, TRIALS = 100, 400
"""Numbers of events and trials that are shown, newest first."""
_TONES = {"succeeded": "good", "failed": "bad", "cancelled": "off"}


@dataclass(frozen=True)
class View:
    """The content of the page at one moment."""

    title: str
    state: str
    """State of the job."""
    parts: dict[str, Markup]
    """The elements of the page that change, by name."""
    verbs: frozenset[str]
    """Actions that are allowed in this state: `pause`, `resume`, `retry`, `cancel`."""


@ui.page("/jobs/{job}")
async def job_page(request: Request, job: str) -> Response | None:
    """The page of one job."""
    context = PageContext.of(request)
    try:
        view = await context.read(lambda session: load_view(session, job))
    except NotFound as error:
        return missing(request, error, "/jobs")
    with frame(request, view.title, "/jobs"):
        await _Live(context, job, view).build()
    return None


class _Live:
    """The elements of the page, refreshed until the job has ended."""

    def __init__(self, context: PageContext, job: str, view: View) -> None:
        self._context, self._job, self._view = context, job, view
        self._head: Head | None = None
        self._elements: dict[str, Any] = {}
        self._buttons: dict[str, Any] = {}

    async def build(self) -> None:
        with ui.element("div").classes("bench"):
            self._put("head")
            with ui.element("div").classes("actions"):
                for verb, (label, kind) in _VERBS.items():
                    self._buttons[verb] = button(label, on_click=self._asking(verb), kind=kind)
                self._put("links")
        self._put("meter")
        with ui.element("div").classes("columns flowing"):
            with ui.element("div").classes("stack"):
                for name in ("result", "curve", "trials"):
                    self._put(name)
            with ui.element("div").classes("stack"):
                for name in ("facts", "events"):
                    self._put(name)
        self._show_buttons()
        self._timer = ui.timer(REFRESH_SECONDS, self.refresh, active=self._view.state not in TERMINAL, immediate=False)

    async def refresh(self) -> None:
        """Read the job again, and send the elements that have changed."""
        newer = await self._context.read(self._look)
        if newer is None:
            return
        for name, content in newer.parts.items():
            if content != self._view.parts[name]:
                self._elements[name].set_content(content)
                self._elements[name].set_visibility(bool(content))
        self._view = newer
        self._show_buttons()
        if newer.state in TERMINAL:
            self._timer.deactivate()

    def _look(self, session: Session) -> View | None:
        """Read the job, or return None if it has no new event. A single query finds the newest event."""
        head = heads(session, [self._job]).get(self._job)
        if head is not None and head == self._head:
            return None
        self._head = head
        return load_view(session, self._job)

    def _put(self, name: str) -> None:
        self._elements[name] = markup(self._view.parts[name]).classes(f"part-{name}")
        self._elements[name].set_visibility(bool(self._view.parts[name]))

    def _show_buttons(self) -> None:
        for verb, shown in self._buttons.items():
            shown.set_visibility(verb in self._view.verbs)

    def _asking(self, verb: str) -> Callable[[], Any]:
        async def ask() -> None:
            try:
                row: JobRow = await self._context.write(lambda session: getattr(jobs, verb)(session, self._job), "jobs")
            except ZooError as error:
                tell(error)
                return
            if row.id != self._job:
                ui.navigate.to(f"/jobs/{row.id}")
                return
            self._timer.activate()
            await self.refresh()

        return ask


_VERBS = {
    "pause": ("Pause", "plain"),
    "resume": ("Resume", "plain"),
    "retry": ("Try again", "plain"),
    "cancel": ("Cancel", "danger"),
}


def verbs(state: str) -> frozenset[str]:
    """The actions that are allowed for a job in this state."""
    following = TRANSITIONS[state]
    allowed = {
        "pause": state not in ("paused", "pausing") and bool(following & {"pausing", "paused"}),
        "resume": state == "paused",
        "retry": state in ("failed", "cancelled"),
        "cancel": state != "cancelling" and bool(following & {"cancelling", "cancelled"}),
    }
    return frozenset(verb for verb, is_allowed in allowed.items() if is_allowed)


def load_view(session: Session, job_id: str) -> View:
    """A job with its newest events and trials.

    Raises:
        NotFound: there is no job with this id.
    """
    job = jobs.get(session, job_id)
    newest_first = select(EventRow).where(EventRow.job_id == job.id).order_by(EventRow.seq.desc()).limit(EVENTS)
    trials, events = tried(session, job), list(session.scalars(newest_first))
    parts = {
        "head": _head(job),
        "links": _links(job),
        "meter": _meter(job, events[0].message if events else ""),
        "result": _result(job),
        "curve": _curve(job, trials),
        "trials": _trials(trials),
        "facts": _facts(job),
        "events": _events(events),
    }
    return View(f"Job {', '.join(job.config['classes'][:4])}", job.state, parts, verbs(job.state))


def tried(session: Session, job: JobRow) -> list[TrialRow]:
    """A job's newest trial of each position in each round, from all attempts, oldest first."""
    rows = select(TrialRow).where(TrialRow.job_id == job.id).order_by(TrialRow.id.desc()).limit(TRIALS)
    return newest_trials(list(session.scalars(rows))[::-1], getattr)


def _head(job: JobRow) -> Markup:
    classes = ", ".join(job.config["classes"][:8]) + (" …" if len(job.config["classes"]) > 8 else "")
    title = Markup("{} <span class='faint'>into</span> {}").format(classes, job.target_version.model.name)
    return heading(title, "Cloning job", Markup("{} {}").format(badge(job.state), identifier(job.id)))


def _links(job: JobRow) -> Markup:
    again = Markup('<a class="button" href="/compare?a={}">Compare</a>').format(job.id)
    return again if job.state in TERMINAL else Markup("")


def _meter(job: JobRow, message: str) -> Markup:
    tone = _TONES.get(job.state, "")
    stage = job.stage if job.stage and job.state not in TERMINAL else job.state
    share = 1.0 if job.state == "succeeded" else job.progress
    bar = Markup(
        '<div class="meter {}" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{:.0f}" '
        'aria-label="Progress"><i style="width: {:.1f}%"></i></div>'
    ).format(tone, 100 * share, 100 * share)
    line = Markup('<div class="stage"><span><strong>{}</strong> {}</span><span>{}</span></div>').format(
        stage.capitalize(), message, f"{share:.0%}"
    )
    fault = problem(job.problem.get("detail", "no reason given")) if job.problem else ""
    return Markup('<div class="card">{}{}{}</div>').format(bar, line, fault)


def _result(job: JobRow) -> Markup:
    module = job.module
    if module is None or module.purged_at is not None:
        return Markup("")
    sizes = " · ".join(f"{bundle.payload} {size(bundle.bytes)}" for bundle in module.bundles)
    open_it = link(f"/modules/{module.id}", "Open the module", "button primary")
    end = Markup('<p class="stage"><span>{}</span>{}</p>').format(sizes, open_it)
    return accuracy_section(module, "Result", end)


def _curve(job: JobRow, trials: list[TrialRow]) -> Markup:
    hint = Markup("Each mark is a tried {}. Horizontal: size of the module. Vertical: score, higher is better").format(
        term("position")
    )
    if not trials:
        waiting = "The first position is shown here after its trial."
        content = empty(
            "No position tried yet", waiting if job.state not in TERMINAL else "The job ended before its first trial."
        )
    else:
        content = position_plot(trials, ended=job.state == "succeeded")
    return section("Positions", content, hint)


def _trials(trials: list[TrialRow]) -> Markup:
    if not trials:
        return Markup("")
    best = sorted(trials, key=lambda trial: (-trial.round, -trial.score))[:12]
    rows = (
        [
            Markup("<code>{}</code> → <code>{}</code>").format(t.target_position, t.source_position),
            t.round or "screening",
            f"{t.score:.3f}",
            percent(t.old),
            percent(t.new),
            count(t.parameters),
        ]
        for t in best
    )
    columns = ["Position", "#Round", "#Score", "#Old", "#New", "#Parameters"]
    hint = f"The best of {len(trials)} trials, sorted by round and score"
    return section("Trials", table(columns, rows, "Trials"), hint)


def _facts(job: JobRow) -> Markup:
    config = job.config
    started, ended = job.started_at, job.finished_at
    took = duration((ended - started).total_seconds()) if started and ended else None
    rows = {
        "Classes": chips(config["classes"], 30),
        "Into": model_link(job.target_ref),
        "From": model_link(job.source_ref),
        "Dataset": Markup("{} <span class='faint'>{:,} images</span>").format(job.dataset.name, job.dataset.rows),
        "Module": id_link(f"/modules/{job.module.id}", job.module.id) if job.module else None,
        "Submitted": ago(job.created_at),
        "Duration": took,
    }
    rest = {
        n.replace("_", " "): v if isinstance(v, str) else json.dumps(v) for n, v in config.items() if n != "classes"
    }
    more = Markup("<details><summary>Parameters</summary>{}</details>").format(facts(rest))
    return section("About", Markup("{}{}").format(facts(rows), more))


def _events(events: list[EventRow]) -> Markup:
    lines = Markup("").join(
        Markup('<li><time datetime="{}">{}</time><span>{}</span></li>').format(
            event.created_at.isoformat(), event.created_at.strftime("%H:%M:%S"), event.message
        )
        for event in events
    )
    return section(
        "Events",
        Markup('<ol class="events" tabindex="0" aria-label="Events">{}</ol>').format(lines),
        "Newest first, in UTC",
    )
