"""`/`: the models."""

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.models.adding.imports import ImportPart
from app.models.tables import ModelRow, VersionRow
from app.web.catalogue import ModelLine, models
from app.web.frame import frame, heading, markup
from app.web.html import DASH, accuracy, ago, aliases_of, badge, chips, count, link, size, version_badge
from app.web.listing import NEWEST, Kind, Listing, asked
from app.web.page_context import PageContext

MOST_REASON = 120
"""Letters of the reason for which a version was rejected."""
MOST_NUMBERS = 3
"""Versions of a model that its row names."""


@ui.page("/")
async def models_page(request: Request, search: str = "", order: str = "", state: str = "", page: int = 1) -> None:
    """All models."""
    context = PageContext.of(request)
    with frame(request, "Models", "/"):
        with ui.element("div").classes("bench"):
            note = "Trained networks. A job clones classes of one into another, without training either again."
            markup(heading("Models", note=note))
            markup(link("/add", "Add a model", "button primary"))
        await ImportPart(context).build()
        await Listing(context, KIND, asked(search, order, state, page)).build()


def _row(line: ModelLine) -> list[object]:
    model, version = line.model, line.version
    name = link(f"/models/{model.name}", model.name)
    if version is None:
        return [name, DASH, DASH, DASH, DASH, DASH, badge("empty"), ago(model.created_at)]
    return [
        Markup("{} {}").format(name, _numbered(model, version.number)),
        version.spec["architecture"],
        chips(version.spec["classes"], 6),
        count(version.parameters),
        size(version.bytes),
        accuracy(version),
        badge("archived") if model.archived_at else version_badge(version) + _why(version),
        ago(version.created_at),
    ]


def _why(version: VersionRow) -> Markup:
    """The beginning of the reason for which a version was rejected."""
    if version.status != "rejected":
        return Markup("")
    reason = str((version.problem or {}).get("detail", "no reason was recorded"))
    shown = reason if len(reason) <= MOST_REASON else reason[: MOST_REASON - 1] + "…"
    return Markup('<div class="why" title="{}">{}</div>').format(reason, shown)


def _numbered(model: ModelRow, newest: int) -> Markup:
    """The newest version with its aliases, and the other versions that aliases point at."""
    numbers = [newest, *sorted({alias.version.number for alias in model.aliases} - {newest}, reverse=True)]
    return Markup(" ").join(
        Markup("<span class='faint'>v{}</span> {}").format(number, chips(aliases, 3) if aliases else "")
        for number in numbers[:MOST_NUMBERS]
        for aliases in [aliases_of(model, number)]
    )


KIND = Kind[ModelLine](
    path="/",
    things="models",
    find=models,
    columns=["Model", "Architecture", "Classes", "#Parameters", "#File", "#Accuracy", "State", "Added"],
    row=_row,
    nothing=Markup(
        "Choose <em>Add a model</em> and drop a file of weights, send one with <code>pnc models push</code>, "
        "or fill the zoo with small real networks: <code>pnc gallery</code>."
    ),
    orders={
        **NEWEST,
        "name": "By name",
        "large": "Largest first",
        "small": "Smallest first",
        "accurate": "Most accurate first",
    },
    hint="names, architectures, classes",
    states={
        "": "All states",
        "ready": "Ready",
        "validating": "Being checked",
        "rejected": "Rejected",
        "archived": "Archived",
    },
)
