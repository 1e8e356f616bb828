"""`/datasets/ID`: what a dataset holds, and a place to put it away."""

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.errors import NotFound
from app.lifecycle.panel import ArchivePanel
from app.web.drawing import bars
from app.web.frame import frame, heading, markup, missing
from app.web.html import ago, badge, facts, section, size
from app.web.page_context import PageContext

CLASSES = 60
"""Classes that are drawn at most."""


@ui.page("/datasets/{dataset}")
async def dataset_page(request: Request, dataset: str) -> Response | None:
    """One dataset."""
    context = PageContext.of(request)
    try:
        row = await context.read(lambda session: datasets.get(session, dataset))
    except NotFound as error:
        return missing(request, error, "/datasets")

    def find(session: Session) -> DatasetRow:
        return datasets.get(session, dataset, purged=True)

    def set_archived(session: Session, archived: bool) -> DatasetRow:
        return datasets.set_archived(session, dataset, archived)

    with frame(request, row.name, "/datasets"):
        markup(content(row)).classes("stack")
        ArchivePanel(context, find, set_archived, "/datasets").build(row.archived_at is not None)
    return None


def content(row: DatasetRow) -> Markup:
    """Everything but the controls."""
    state = badge("archived") if row.archived_at else ""
    note = Markup("{} <code>{}</code> {}").format(state, row.id, ago(row.created_at))
    about = {
        "Images": f"{row.rows:,}",
        "Classes": f"{len(row.classes):,}" if row.classes else "none: the images have no labels",
        "File": size(row.bytes),
        "Digest": Markup("<code>{}</code>").format(row.digest),
        "Archived": ago(row.archived_at) if row.archived_at else "no",
    }
    most = max([1, *row.counts.values()])
    counts = [(name, row.counts.get(name, 0) / most, f"{row.counts.get(name, 0):,}") for name in row.classes[:CLASSES]]
    rest = len(row.classes) - CLASSES
    more = Markup('<p class="faint">and {:,} more classes</p>').format(rest) if rest > 0 else ""
    drawn = section("Images", Markup("{}{}").format(bars(counts, "Images of each class"), more), "Of each class")
    return Markup('{}<div class="columns">{}{}</div>').format(
        heading(row.name, "Dataset", note), drawn, section("About", facts(about))
    )
