"""`/compare?ids=ID,ID`: two to six jobs or modules side by side; lines that differ are marked."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

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
from app.web.drawing import overlay
from app.web.forms.picking import MOST
from app.web.frame import button, frame, heading, markup
from app.web.html import DASH, badge, count, duration, empty, link, percent, problem, section, size
from app.web.page_context import PageContext

Rows = dict[str, object]
LETTERS = "ABCDEF"
"""Names of the compared jobs or modules, in their order."""


@ui.page("/compare")
async def comparison_page(request: Request, ids: str = "", a: str = "", b: str = "") -> None:
    """The page that compares two to six jobs or modules.

    Args:
        request: Request of the visitor.
        ids: Ids, separated by commas.
        a: The first id, as older links have it.
        b: The second one.
    """
    context = PageContext.of(request)
    given = [text.strip() for text in (*ids.split(","), a, b) if text.strip()]
    with frame(request, "Compare", "/jobs"):
        note = "Two to six jobs, or as many modules, side by side; lines that differ are marked."
        markup(heading("Compare", note=note))
        with ui.element("div").classes("card tools"):
            field = (
                ui.input("Ids of jobs or of modules", value=", ".join(given)).props("outlined dense").classes("grow")
            )

            def compare() -> None:
                wanted = [text.strip() for text in (field.value or "").split(",") if text.strip()]
                ui.navigate.to(f"/compare?{urlencode({'ids': ','.join(wanted)})}")

            field.on("keydown.enter", compare)
            button("Compare", on_click=compare, kind="go")
        markup(await context.read(lambda session: _content(session, given))).classes("stack")


def _content(session: Session, given: list[str]) -> Markup:
    if not 2 <= len(given) <= MOST:
        advice = Markup('Tick their boxes in the lists of <a href="/jobs">jobs</a> or <a href="/modules">modules</a>.')
        return empty(f"Choose two to {MOST} jobs or modules", advice)
    kinds = {text.partition("_")[0] for text in given}
    if kinds not in ({"job"}, {"mod"}):
        return problem("expected ids that all begin with job_ or with mod_, got " + ", ".join(given)[:120])
    try:
        return _jobs(session, given) if kinds == {"job"} else _modules(session, given)
    except NotFound as error:
        return problem(str(error))


def _jobs(session: Session, given: list[str]) -> Markup:
    rows = [jobs.get(session, identifier) for identifier in given]
    trials = [tried(session, job) for job in rows]
    curves = {letter: found for letter, found in zip(LETTERS, trials, strict=False) if found}
    hint = "The best score with at most so many parameters. Horizontal: size of the module. Vertical: score"
    over = section("Positions over each other", overlay(curves), hint) if curves else Markup("")
    return _table([_job_facts(job) for job in rows]) + over


def _modules(session: Session, given: list[str]) -> Markup:
    rows = [modules.get(session, identifier) for identifier in given]
    each = Markup("").join(
        accuracy_section(module, f"Accuracy of {letter}") for letter, module in zip(LETTERS, rows, strict=False)
    )
    return Markup('{}<div class="columns even">{}</div>').format(_table([_module_facts(row) for row in rows]), each)


def _job_facts(job: JobRow) -> Rows:
    time_taken = None
    if job.started_at and job.finished_at:
        time_taken = duration((job.finished_at - job.started_at).total_seconds())
    shares = job.module.manifest.get("validation", {}) if job.module else {}
    return {
        "Job": link(f"/jobs/{job.id}", job.id),
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
        "Module": link(f"/modules/{module.id}", module.id),
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


def _table(sides: list[Rows]) -> Markup:
    """A column for each side; lines that differ are marked. Below it stands a link to the same as CSV."""
    names = list(dict.fromkeys(name for side in sides for name in side))
    letters = LETTERS[: len(sides)]
    lines = Markup("").join(
        Markup('<tr class="{}"><td><span class="faint">{}</span></td>{}</tr>').format(
            "differs" if number > 0 and len({str(side.get(name)) for side in sides}) > 1 else "",
            name,
            Markup("").join(
                Markup('<td data-label="{}"><span>{}</span></td>').format(
                    letter, DASH if side.get(name) in (None, "") else side[name]
                )
                for letter, side in zip(letters, sides, strict=True)
            ),
        )
        for number, name in enumerate(names)
    )
    titles = Markup("").join(Markup('<th scope="col">{}</th>').format(letter) for letter in letters)
    head = Markup('<thead><tr><th scope="col">Property</th>{}</tr></thead>').format(titles)
    address = f"data:text/csv;charset=utf-8,{quote(_csv(names, sides))}"
    csv_link = Markup('<a class="button" href="{}" download="comparison.csv">Download as CSV</a>').format(address)
    return Markup(
        '<div class="card flush"><table class="list compared"><caption>Comparison</caption>{}<tbody>{}</tbody></table>'
        '</div><div class="actions">{}</div>'
    ).format(head, lines, csv_link)


def _words(value: object) -> str:
    """A cell without its links and badges."""
    return value.striptags() if isinstance(value, Markup) else str(value)


def _csv(names: list[str], sides: list[Rows]) -> str:
    """The comparison as CSV, with text in place of links and badges."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["property", *LETTERS[: len(sides)]])
    for name in names:
        values = (side.get(name) for side in sides)
        writer.writerow([name, *("" if one is None else _words(one) for one in values)])
    return file.getvalue()
