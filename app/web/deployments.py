"""`/deployments`: targets served under a name."""

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.web.choosing import model_choice
from app.web.desk import Desk
from app.web.frame import button, frame, heading, markup, notify, tell
from app.web.listing import NEWEST, Kind, Listing, asked
from app.web.words import ago, badge, link, model_link
from app.zoo import deployments as zoo
from app.zoo.catalogue import deployments
from app.zoo.errors import ZooError
from app.zoo.tables import DeploymentRow, RevisionRow

Line = tuple[DeploymentRow, RevisionRow]


@ui.page("/deployments")
async def deployments_page(request: Request, search: str = "", order: str = "", page: int = 1) -> None:
    """All deployments."""
    desk = Desk.of(request)
    with frame(request, "Deployments", "/deployments"):
        note = "Targets served under a name; modules are attached and detached while they answer."
        markup(heading("Deployments", note=note))
        await _serving(desk)
        await Listing(desk, KIND, asked(search, order, "", page)).build()


async def _serving(desk: Desk) -> None:
    """The line that serves another model."""

    async def serve() -> None:
        try:
            refusal = await desk.roll_out(lambda session: zoo.put(session, name.value or "", target.value or ""))
        except ZooError as error:
            tell(error)
            return
        if refusal is None:
            ui.navigate.to(f"/deployments/{name.value}")
        else:
            notify(refusal, good=False)

    with ui.element("div").classes("card tools"):
        name = ui.input("Name").props('outlined dense aria-label="Name of the deployment"')
        target = await model_choice(desk, "Model to serve")
        button("Serve", on_click=serve, kind="go")


def state(deployment: DeploymentRow) -> str:
    """Whether what is wanted is served."""
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
    nothing=Markup("Serve a model with the line above, or with <code>pnc deployments create NAME MODEL</code>."),
    orders={**NEWEST, "name": "By name"},
    hint="names, models",
)
