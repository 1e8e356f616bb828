"""`/jobs`: the list of cloning jobs."""

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.jobs.states import TERMINAL, TRANSITIONS
from app.jobs.tables import JobRow
from app.web.catalogue import jobs
from app.web.forms.picking import COMPARING, PICKING, pickable
from app.web.frame import frame, heading, markup
from app.web.html import ago, badge, chips, id_link, link, model_link, percent
from app.web.listing import NEWEST, Kind, Listing, asked
from app.web.page_context import PageContext


@ui.page("/jobs")
async def jobs_page(request: Request, search: str = "", order: str = "", state: str = "", page: int = 1) -> None:
    """The page with the list of jobs."""
    context = PageContext.of(request)
    with frame(request, "Jobs", "/jobs"):
        with ui.element("div").classes("bench"):
            markup(heading("Jobs", note="A job clones classes of a source into a module for a target."))
            markup(COMPARING, "span").classes("actions")
            ui.add_body_html(str(PICKING))  # a Markup would escape what the page has already
        await Listing(context, KIND, asked(search, order, state, page)).build()


def row(job: JobRow) -> list[object]:
    """The cells of a job in the list."""
    progress = (
        badge(job.state) if job.state in TERMINAL else Markup("{} {}").format(badge(job.state), percent(job.progress))
    )
    return [
        id_link(f"/jobs/{job.id}", job.id),
        progress,
        chips(job.config["classes"], 5),
        model_link(job.source_ref),
        model_link(job.target_ref),
        link(f"/modules/{job.module.id}", "module") if job.module else "",
        ago(job.created_at),
    ]


def _picked(job: JobRow) -> list[object]:
    """The cells in the list of all jobs, with a box that picks the job for a comparison."""
    first, *others = row(job)
    return [Markup("{}{}").format(pickable(job.id), first), *others]


COLUMNS = ["Job", "State", "Classes", "From", "Into", "Result", "Submitted"]
KIND = Kind[JobRow](
    path="/jobs",
    things="jobs",
    find=jobs,
    columns=COLUMNS,
    row=_picked,
    nothing=Markup('Start one with <a href="/new">New job</a>, or with <code>pnc jobs create</code>.'),
    orders=NEWEST,
    hint="ids, models",
    states={"": "All states", "live": "Not ended", **{name: name.capitalize() for name in TRANSITIONS}},
)
