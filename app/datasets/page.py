"""`/datasets/ID`: what a dataset holds, and a place to put it away."""

from base64 import b64encode
from collections.abc import Mapping

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.datasets import inspections
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.errors import NotFound
from app.lifecycle.panel import ArchivePanel
from app.web.drawing import bars
from app.web.frame import frame, heading, markup, missing
from app.web.html import DASH, ago, badge, command, facts, problem, section, size, table
from app.web.page_context import PageContext

CLASSES = 60
"""Classes that are drawn at most."""
SHEET = 40
"""Classes whose samples are shown at most."""
SECONDS = 2.0
"""Interval at which the page of a dataset that is being inspected looks for news."""


@ui.page("/datasets/{dataset}")
async def dataset_page(request: Request, dataset: str) -> Response | None:
    """One dataset."""
    context = PageContext.of(request)
    try:
        row, strips = await context.read(lambda session: _shown(session, dataset))
    except NotFound as error:
        return missing(request, error, "/datasets")

    def find(session: Session) -> DatasetRow:
        return datasets.get(session, dataset, purged=True)

    def set_archived(session: Session, archived: bool) -> DatasetRow:
        return datasets.set_archived(session, dataset, archived)

    with frame(request, row.name, "/datasets"):
        shown = markup(content(row, strips)).classes("stack")

        async def refresh() -> None:
            row, strips = await context.read(lambda session: _shown(session, dataset))
            shown.set_content(content(row, strips))
            timer.active = row.inspection == "waiting"

        timer = ui.timer(SECONDS, refresh, active=row.inspection == "waiting", immediate=False)
        ArchivePanel(context, find, set_archived, "/datasets").build(row.archived_at is not None)
    return None


def _shown(session: Session, dataset: str) -> tuple[DatasetRow, dict[int, bytes]]:
    return datasets.get(session, dataset), inspections.samples(session, dataset, SHEET)


def content(row: DatasetRow, strips: Mapping[int, bytes]) -> Markup:
    """Everything but the controls.

    Args:
        row: The dataset.
        strips: WebP with samples of each class, by label.
    """
    state = badge("archived") if row.archived_at else ""
    note = Markup("{} <code>{}</code> {}").format(state, row.id, ago(row.created_at))
    about: dict[str, object] = {
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
    about |= _measured(row)
    download = Markup('<a class="button" href="/v1/datasets/{}/content" download="">Download the Parquet file · {}</a>')
    side = Markup("{}{}").format(
        section("About", facts(about)), "" if row.purged_at else download.format(row.id, size(row.bytes))
    )
    return Markup('{}{}<div class="columns">{}{}</div>{}').format(
        heading(row.name, "Dataset", note), _odd(row), drawn, side, _sheet(row, strips)
    )


def _measured(row: DatasetRow) -> dict[str, object]:
    """What the inspection has found, in numbers."""
    found = row.findings
    if found is None:
        return {
            "Inspection": f"{row.inspected:,} of {row.rows:,} images decoded"
            if row.inspection == "waiting"
            else "failed"
        }
    sizes = found["sizes"]
    sides = "{shorter_smallest} to {shorter_largest} px, half at most {shorter_median} px"
    return {
        "Decoded": f"{found['good']:,} of {row.rows:,}",
        "Shorter side": sides.format(**sizes) if sizes else "none",
        "Exact copies": f"{found['exact']:,}",
        "Near copies": f"{found['near']:,}",
        "Of one colour": f"{found['constant']:,}",
    }


def _odd(row: DatasetRow) -> Markup:
    """Warnings, and images that cannot be decoded."""
    if row.inspection == "failed":
        return problem((row.problem or {}).get("detail", "the inspection failed"))
    if row.findings is None:
        return Markup("")
    lines = [one["detail"] for one in row.findings["warnings"]]
    if not lines:
        fine = "Every image can be decoded, and nothing is odd."
        return Markup('<div class="fine"><i aria-hidden="true">✓</i><span>{}</span></div>').format(fine)
    items = Markup("").join(Markup("<li>{}</li>").format(line) for line in lines)
    first = [[f"{one['row']:,}", one["name"] or DASH, one["reason"]] for one in row.findings["first_unreadable"]]
    listed = table(["#Row", "File", "Reason"], first, "The first images that cannot be decoded") if first else ""
    rest = row.unreadable - len(first)
    more_of = command("pnc", "datasets", "unreadable", row.id) if rest > 0 else ""
    return section("Odd", Markup('<ul class="warnings">{}</ul>{}{}').format(items, listed, more_of), "What to look at")


def _sheet(row: DatasetRow, strips: Mapping[int, bytes]) -> Markup:
    """Samples of each class."""
    if not strips:
        return Markup("")
    picture = Markup(
        '<figure class="strip"><figcaption>{} <span class="faint">{}</span></figcaption>'
        '<img src="data:image/webp;base64,{}" alt="Samples of {}" loading="lazy" height="64"/></figure>'
    )
    drawn = [
        picture.format(name, f"{row.counts.get(name, row.rows - row.unreadable):,}", b64encode(strip).decode(), name)
        for label, strip in strips.items()
        for name in (row.classes[label] if label >= 0 else "all images",)
    ]
    rest = len(row.classes) - len(strips)
    more = Markup('<p class="faint">and {:,} more classes</p>').format(rest) if rest > 0 and row.classes else ""
    return section(
        "Samples",
        Markup('<div class="strips">{}</div>{}').format(Markup("").join(drawn), more),
        "Eight of each class, drawn at random",
    )
