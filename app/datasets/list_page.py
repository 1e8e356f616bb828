"""`/datasets`: images, and a place to drop more."""

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.datasets.tables import DatasetRow
from app.web.catalogue import datasets
from app.web.forms.drop_zone import DropZone
from app.web.forms.receiving import add_dataset
from app.web.frame import frame, heading, markup
from app.web.html import ago, chips, copy_button, link, short, size
from app.web.listing import ARCHIVE_STATES, NEWEST, Kind, Listing, asked
from app.web.page_context import PageContext

_HINT = "With a column of images and one of labels. `pnc datasets push` sends folders, archives and other forms."
_ODD = re.compile(r"[^a-z0-9._-]+")


@ui.page("/datasets")
async def datasets_page(request: Request, search: str = "", order: str = "", state: str = "", page: int = 1) -> None:
    """All datasets."""
    context = PageContext.of(request)
    with frame(request, "Datasets", "/datasets"):
        note = "Images that jobs learn from. Each is decoded once, and copies and bad files are found."
        markup(heading("Datasets", note=note))
        listing = Listing(context, KIND, asked(search, order, state, page))

        async def take(file: Any) -> str:
            name = _ODD.sub("-", Path(file.name).stem.lower()).strip("-._")[:63] or "dataset"
            await add_dataset(context, name, file)
            await listing.refresh()
            return f"{name} is registered; a worker decodes the images."

        zone = DropZone(take, context.zoo.settings.max_upload_bytes)
        zone.build("Images", "Drop a Parquet file here, or choose one", _HINT, ".parquet")
        await listing.build()


def _badge(row: DatasetRow) -> Markup:
    """How many warnings a dataset has, with the first one as the tooltip."""
    found = (row.findings or {}).get("warnings", [])
    if not found:
        return Markup("")
    count = f"{len(found)} warning{'s' if len(found) > 1 else ''}"
    return Markup(' <span class="faint" title="{}">{}</span>').format(found[0]["detail"], count)


def _row(row: DatasetRow) -> list[object]:
    named = [f"{name} ({row.counts.get(name, 0)})" for name in row.classes[:200]]
    return [
        Markup("{} {}{}").format(
            link(f"/datasets/{row.id}", row.name), short(row.id), copy_button(row.id, f"id {row.id}")
        ),
        Markup("{:,}{}").format(row.rows, _badge(row)),
        chips(named, 6) if named else "no labels",
        size(row.bytes),
        ago(row.created_at),
    ]


KIND = Kind[DatasetRow](
    path="/datasets",
    things="datasets",
    find=datasets,
    columns=["Dataset", "#Images", "Classes", "#File", "Registered"],
    row=_row,
    nothing=Markup(
        "Drop a Parquet file above, or send a folder, an archive or arrays with <code>pnc datasets push WHAT</code>."
    ),
    orders={**NEWEST, "name": "By name", "large": "Most images first"},
    hint="names, ids, classes",
    states=ARCHIVE_STATES,
)
