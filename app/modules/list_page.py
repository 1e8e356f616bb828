"""`/modules`: the list of modules."""

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.modules.tables import ModuleRow
from app.web.catalogue import modules
from app.web.forms.picking import COMPARING, PICKING, pickable
from app.web.frame import frame, heading, markup
from app.web.html import ago, chips, id_link, model_link, percent, size
from app.web.listing import ARCHIVE_STATES, NEWEST, Kind, Listing, asked
from app.web.page_context import PageContext


@ui.page("/modules")
async def modules_page(request: Request, search: str = "", order: str = "", state: str = "", page: int = 1) -> None:
    """The page with the list of modules."""
    context = PageContext.of(request)
    with frame(request, "Modules", "/modules"):
        with ui.element("div").classes("bench"):
            markup(heading("Modules", note="A module adds classes of another network to one target."))
            markup(COMPARING, "span").classes("actions")
            ui.add_body_html(str(PICKING))  # a Markup would escape what the page has already
        await Listing(context, KIND, asked(search, order, state, page)).build()


def row(module: ModuleRow) -> list[object]:
    """The cells of a module in the list."""
    thin = next((bundle.bytes for bundle in module.bundles if bundle.payload == "thin"), None)
    return [
        id_link(f"/modules/{module.id}", module.id),
        chips(module.classes, 6),
        model_link(module.source_ref),
        model_link(module.target_ref),
        percent(module.manifest.get("validation", {}).get("average")),
        size(thin) if thin is not None else "—",
        ago(module.created_at),
    ]


def _picked(module: ModuleRow) -> list[object]:
    """The cells in the list of all modules, with a box that picks the module for a comparison."""
    first, *others = row(module)
    return [Markup("{}{}").format(pickable(module.id), first), *others]


COLUMNS = ["Module", "Adds", "From", "Into", "#Accuracy", "#Thin file", "Published"]
KIND = Kind[ModuleRow](
    path="/modules",
    things="modules",
    find=modules,
    columns=COLUMNS,
    row=_picked,
    nothing=Markup('Each job that succeeds publishes a module. Start with <a href="/new">New job</a>.'),
    orders=NEWEST,
    hint="classes, models, ids",
    states=ARCHIVE_STATES,
)
