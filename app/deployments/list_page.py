"""`/deployments`: the list of deployments, and a form that makes one."""

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.deployments import service as zoo
from app.deployments.tables import DeploymentRow, RevisionRow
from app.errors import ZooError
from app.web.catalogue import deployments
from app.web.forms.choosing import model_choice
from app.web.frame import button, frame, heading, markup, notify, tell
from app.web.html import ago, badge, link, model_link
from app.web.listing import NEWEST, Kind, Listing, asked
from app.web.page_context import PageContext

Line = tuple[DeploymentRow, RevisionRow]


@ui.page("/deployments")
async def deployments_page(request: Request, search: str = "", order: str = "", page: int = 1) -> None:
    """The page with the list of deployments."""
    context = PageContext.of(request)
    with frame(request, "Deployments", "/deployments"):
        note = "A deployment serves a target under a name. Modules can be attached and detached while it serves."
        markup(heading("Deployments", note=note))
        await _serving(context)
        await Listing(context, KIND, asked(search, order, "", page)).build()


async def _serving(context: PageContext) -> None:
    """The form that makes a deployment."""

    async def serve() -> None:
        try:
            refusal = await context.roll_out(lambda session: zoo.put(session, name.value or "", target.value or ""))
        except ZooError as error:
            tell(error)
            return
        if refusal is None:
            ui.navigate.to(f"/deployments/{name.value}")
        else:
            notify(refusal, good=False)

    with ui.element("div").classes("card tools"):
        name = ui.input("Name").props('outlined dense aria-label="Name of the deployment"')
        target = await model_choice(context, "Model to serve")
        button("Serve", on_click=serve, kind="go")


def state(deployment: DeploymentRow) -> str:
    """Whether the desired revision is served: `changing`, `served` or `failed`."""
    if deployment.observed_generation != deployment.generation:
        return "changing"
    return "served" if deployment.observed_problem is None else "failed"


def _row(line: Line) -> list[object]:
    deployment, revision = line
    attached = len(revision.attachments)
    return [
        link(f"/deployments/{deployment.name}", deployment.name),
        badge(state(deployment)),
        model_link(revision.version.ref),
        f"{attached} attached" if attached else "none",
        deployment.generation,
        ago(revision.created_at),
    ]


KIND = Kind[Line](
    path="/deployments",
    things="deployments",
    find=deployments,
    columns=["Deployment", "State", "Target", "Modules", "#Generation", "Changed"],
    row=_row,
    nothing=Markup("Serve a model with the form above, or with <code>pnc deployments create NAME MODEL</code>."),
    orders={**NEWEST, "name": "By name"},
    hint="names, models",
)
