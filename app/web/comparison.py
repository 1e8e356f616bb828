"""`/compare?a=ID&b=ID`: two jobs or two modules side by side; lines that differ are marked."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.errors import NotFound
from app.jobs import service as jobs
from app.jobs.page import tried
from app.jobs.tables import JobRow
from app.modules import service as modules
from app.modules.accuracy import accuracy_section
from app.modules.tables import ModuleRow
from app.web.drawing import position_plot
from app.web.frame import button, frame, heading, markup
from app.web.html import DASH, badge, count, duration, empty, link, percent, problem, section, short, size
from app.web.page_context import PageContext

Rows = dict[str, object]
_NAMES = ("the first", "the second")


@ui.page("/compare")
async def comparison_page(request: Request, a: str = "", b: str = "") -> None:
    """The page that compares two jobs or two modules."""
    context = PageContext.of(request)
    with frame(request, "Compare", "/jobs"):
        markup(heading("Compare", note="Two jobs, or two modules, side by side; lines that differ are marked."))
        with ui.element("div").classes("card tools"):
            first = ui.input("Id of a job or module", value=a).props("outlined dense").classes("grow")
            second = ui.input("Id of the other job or module", value=b).props("outlined dense").classes("grow")

            def compare() -> None:
                ui.navigate.to(f"/compare?a={first.value.strip()}&b={second.value.strip()}")

            first.on("keydown.enter", compare)
            second.on("keydown.enter", compare)
            button("Compare", on_click=compare, kind="go")
        markup(await context.read(lambda session: _content(session, a.strip(), b.strip()))).classes("stack")


def _content(session: Session, a: str, b: str) -> Markup:
    if not (a and b):
        advice = Markup('Copy their ids from the lists of <a href="/jobs">jobs</a> or <a href="/modules">modules</a>.')
        return empty("Name two jobs or two modules", advice)
    kinds = {a.partition("_")[0], b.partition("_")[0]}
    if kinds not in ({"job"}, {"mod"}):
        return problem("expected two ids that both begin with job_ or with mod_, got " + ", ".join((a, b))[:120])
    try:
        return _jobs(session, a, b) if kinds == {"job"} else _modules(session, a, b)
    except NotFound as error:
        return problem(str(error))


def _jobs(session: Session, a: str, b: str) -> Markup:
    rows = [jobs.get(session, identifier) for identifier in (a, b)]
    plots = [
        section(
            f"Positions of {name}",
            position_plot(t, ended=job.state == "succeeded") if t else empty("No position tried", ""),
        )
        for name, job, t in ((name, job, tried(session, job)) for name, job in zip(_NAMES, rows, strict=True))
    ]
    facts = [_job_facts(job) for job in rows]
    return Markup('{}<div class="columns even">{}{}</div>').format(_table(*facts), *plots)


def _modules(session: Session, a: str, b: str) -> Markup:
    rows = [modules.get(session, identifier) for identifier in (a, b)]
    both = [accuracy_section(module, f"Accuracy of {name}") for name, module in zip(_NAMES, rows, strict=True)]
    return Markup('{}<div class="columns even">{}{}</div>').format(_table(*map(_module_facts, rows)), *both)


def _job_facts(job: JobRow) -> Rows:
    time_taken = None
    if job.started_at and job.finished_at:
        time_taken = duration((job.finished_at - job.started_at).total_seconds())
    shares = job.module.manifest.get("validation", {}) if job.module else {}
    return {
        "Job": link(f"/jobs/{job.id}", short(job.id)),
        "State": badge(job.state),
        "Into": job.target_ref,
        "From": job.source_ref,
        "Dataset": job.dataset.name,
        "Duration": time_taken,
        "Old classes": percent(shares.get("old")),
        "Cloned classes": percent(shares.get("new")),
        **_flat(job.config),
    }


def _module_facts(module: ModuleRow) -> Rows:
    manifest = module.manifest
    position = manifest.get("position", {})
    return {
        "Module": link(f"/modules/{module.id}", short(module.id)),
        "Into": module.target_ref,
        "From": module.source_ref,
        "Position": " → ".join(str(position[side]) for side in ("target", "source") if side in position),
        "Kept": percent(manifest.get("kept_fraction")),
        **{f"Numbers: {part}": count(number) for part, number in manifest.get("sizes", {}).items()},
        **{f"File: {bundle.payload}": size(bundle.bytes) for bundle in module.bundles},
        **_flat(manifest.get("config", {})),
    }


def _flat(config: Mapping[str, Any]) -> Rows:
    return {name.replace("_", " "): _text(value) for name, value in config.items()}


def _text(value: object) -> str | None:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _table(a: Rows, b: Rows) -> Markup:
    lines = Markup("").join(
        Markup('<tr class="{}"><td><span class="faint">{}</span></td><td data-label="first">{}</td>'
               '<td data-label="second">{}</td></tr>').format(
            "differs" if number > 0 and a.get(name) != b.get(name) else "", name,
            *(DASH if side.get(name) in (None, "") else side[name] for side in (a, b)),
        )
        for number, name in enumerate({**a, **b})
    )  # fmt: skip
    head = Markup("<thead><tr><th></th><th>First</th><th>Second</th></tr></thead>")
    return Markup('<div class="card flush"><table class="list">{}<tbody>{}</tbody></table></div>').format(head, lines)
