"""The lineage of modules as a picture: models, the jobs that cloned from them, modules, and deployments.

Each box links to its page. The picture has four columns, read from left to right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from app.modules.tables import ModuleRow

WIDE, HIGH, GAP_X, GAP_Y = 190, 46, 70, 14
"""Pixels of a box, and between boxes."""
MOST_LETTERS = 22
COLUMNS = ("model", "job", "module", "deployment")


@dataclass(frozen=True)
class Node:
    """One box."""

    path: str
    kind: str
    text: str
    is_this: bool = False
    """Whether the page is about it."""


@dataclass
class Graph:
    """Boxes by column, and lines between them."""

    columns: dict[str, list[Node]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    lines: list[tuple[str, str]] = field(default_factory=list)
    """Paths of the boxes that each line joins."""

    def put(self, node: Node) -> str:
        """Add a box unless it is there; returns its path."""
        column = self.columns[node.kind]
        if node.path not in {other.path for other in column}:
            column.append(node)
        return node.path

    def join(self, left: str, right: str) -> None:
        """Add a line unless it is there."""
        if (left, right) not in self.lines:
            self.lines.append((left, right))


def graph_of(modules: Sequence[ModuleRow], served: dict[str, list[str]], this: str) -> Graph:
    """The lineage of some modules.

    Args:
        modules: The modules.
        served: Names of the deployments that have each module attached, by module id.
        this: Path of the page that shows the picture.
    """
    graph = Graph()

    def put(path: str, kind: str, text: str) -> str:
        return graph.put(Node(path, kind, text, path == this))

    for module in modules:
        job = put(f"/jobs/{module.job_id}", "job", f"…{module.job_id[-6:]}") if module.job_id else None
        own = put(f"/modules/{module.id}", "module", ", ".join(module.classes))
        for ref in (module.source_version.model.name, module.target_version.model.name):
            model = put(f"/models/{ref}", "model", ref)
            graph.join(model, job or own)
        if job:
            graph.join(job, own)
        for name in served.get(module.id, []):
            graph.join(own, put(f"/deployments/{name}", "deployment", name))
    return graph


def drawn(graph: Graph) -> Markup:
    """The picture."""
    tallest = max(len(column) for column in graph.columns.values())
    high = tallest * (HIGH + GAP_Y) + GAP_Y
    used = [name for name in COLUMNS if graph.columns[name]]
    places: dict[str, tuple[float, float]] = {}
    for x, name in enumerate(used):
        column = graph.columns[name]
        step = high / len(column)
        for y, node in enumerate(column):
            places[node.path] = (x * (WIDE + GAP_X) + 2, (y + 0.5) * step - HIGH / 2)
    lines = Markup("").join(_line(places[a], places[b]) for a, b in graph.lines)
    boxes = Markup("").join(_box(node, *places[node.path]) for name in used for node in graph.columns[name])
    wide = len(used) * (WIDE + GAP_X) - GAP_X + 4
    return Markup(
        '<div class="graph" tabindex="0" role="region" aria-label="Lineage"><svg width="{0}" height="{1}" '
        'viewBox="0 0 {0} {1}">{2}{3}</svg></div>'
    ).format(wide, round(high), lines, boxes)


def _line(left: tuple[float, float], right: tuple[float, float]) -> Markup:
    x1, y1, x2, y2 = left[0] + WIDE, left[1] + HIGH / 2, right[0], right[1] + HIGH / 2
    bend = (x1 + x2) / 2
    return Markup('<path d="M{:.0f} {:.1f} C{:.0f} {:.1f} {:.0f} {:.1f} {:.0f} {:.1f}"/>').format(
        x1, y1, bend, y1, bend, y2, x2, y2
    )


def _box(node: Node, x: float, y: float) -> Markup:
    text = node.text if len(node.text) <= MOST_LETTERS else node.text[: MOST_LETTERS - 1] + "…"
    return Markup(
        '<a href="{0}" class="{1}"><title>{2} {3}</title><rect x="{4:.0f}" y="{5:.1f}" '
        'width="{6}" height="{7}" rx="9"/><text class="kind" x="{8:.0f}" y="{9:.1f}">{2}</text>'
        '<text x="{8:.0f}" y="{10:.1f}">{11}</text></a>'
    ).format(
        node.path, "this" if node.is_this else "", node.kind, node.text, x, y, WIDE, HIGH, x + 12, y + 17, y + 35, text
    )
