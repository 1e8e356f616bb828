"""`/`: the models, and a place to drop a new one."""

import re
from pathlib import Path

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.errors import ZooError
from app.models.import_dialog import ImportPart
from app.models.tables import ModelRow
from app.web.catalogue import ModelLine, models
from app.web.frame import button, frame, heading, markup, notify, tell
from app.web.html import DASH, accuracy, ago, aliases_of, badge, chips, count, link, size, title, version_badge
from app.web.listing import NEWEST, Kind, Listing, asked
from app.web.page_context import PageContext
from app.web.receiving import add_model, read_spec_apart, text_of

MOST_NUMBERS = 3
"""Versions of a model that its row names."""
_ODD = re.compile(r"[^a-z0-9._-]+")
_EXAMPLE = (
    '{"architecture": "resnet20", "classes": ["cat", "dog"], "input_size": [3, 32, 32], '
    '"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}'
)


@ui.page("/")
async def models_page(request: Request, search: str = "", order: str = "", state: str = "", page: int = 1) -> None:
    """All models."""
    context = PageContext.of(request)
    with frame(request, "Models", "/"):
        with ui.element("div").classes("bench"):
            note = "Trained networks. A job clones classes of one into another, without training either again."
            markup(heading("Models", note=note))
            with ui.element("div").classes("actions"):
                fetch = button("Import a model")
                add = button("Add a model", kind="go")
        listing = Listing(context, KIND, asked(search, order, state, page))
        dialog = _adding(context, listing)
        add.on_click(dialog.open)
        part = ImportPart(context)
        fetch.on_click(part.dialog().open)
        await part.build()
        await listing.build()


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
        badge("archived") if model.archived_at else version_badge(version),
        ago(version.created_at),
    ]


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
        "Choose <em>Add a model</em> and drop a safetensors file, send one with <code>pnc models push</code>, "
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


def _adding(context: PageContext, listing: Listing[ModelLine]) -> ui.dialog:
    """The dialog that takes a description and weights."""
    with (
        ui.dialog() as dialog,
        ui.element("div").classes("card stack tight").props('role="dialog" aria-label="Add a model"'),
    ):
        markup(title("Add a model"))
        name = ui.input("Name").props('outlined dense hint="lower-case letters, digits and . _ -"').classes("full")
        spec = ui.textarea("Description (JSON)", placeholder=_EXAMPLE).props("outlined dense autogrow input-class=mono")
        licence = ui.input("Licence of the weights", value="").props("outlined dense")

        async def take(event: object) -> None:
            files = event.files  # type: ignore[attr-defined]
            weights = [f for f in files if f.name.endswith(".safetensors")]
            for file in (f for f in files if f.name.endswith(".json")):
                spec.set_value(await text_of(file))
            if not weights:
                if not any(f.name.endswith(".json") for f in files):
                    notify("expected a .safetensors file; convert a .pth file with `pnc models push`", good=False)
                return
            if not name.value:
                name.set_value(_ODD.sub("-", Path(weights[0].name).stem.lower()).strip("-._")[:63])
            if not spec.value:
                notify("expected a description beside the weights; drop the .json, too, or write it above", good=False)
                return
            try:
                ref = await add_model(
                    context, name.value, await read_spec_apart(spec.value or ""), weights[0], licence.value
                )
            except (ZooError, OSError) as error:
                tell(error)
                return
            dialog.close()
            for field in (name, spec):
                field.set_value("")
            upload.reset()
            notify(f"{ref} is added; a worker is checking it")
            await listing.refresh()

        with ui.element("div").classes("drop"):
            label = "Drop weights (.safetensors) here, with their .json beside them, or choose with +"
            upload = ui.upload(label=label, multiple=True, auto_upload=True, on_multi_upload=take)
            upload.props('accept=".safetensors,.json" flat')
        with ui.element("div").classes("actions"):
            button("Close", on_click=dialog.close, kind="plain")
    return dialog
