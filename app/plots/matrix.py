"""Heat map of the similarity matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from app.plots.drawing import INK, PAPER, WIDTH, Record, new_figure, shortened, styled

LETTER, CELL, ROW, BAR = 0.075, 0.38, 0.27, 0.85
"""Size in inches of a letter, of a cell with a number, of a row, and of the colour bar with its label."""
MAX_COLUMNS, MAX_ROWS = 8, 20
"""A larger matrix is drawn without numbers and with the names of some classes only."""
_TITLES = {"module": "Module", "source": "Source"}


@styled
def similarity_matrix(similarity: Record) -> Figure:
    """Similarity of the local representations of module and source; a second panel compares the source with itself.

    Args:
        similarity: Record with `rows` (names of the source's classes), `columns` (cloned classes, equal to
            the first rows), `module` and `source` (matrices of cosines, -1..1, rows by columns),
            and `transferability`, `explicitness` and `ceiling` (numbers or None).
    """
    plan = _plan(similarity["rows"], similarity["columns"])
    figure = new_figure(plan.height)
    panels = figure.subplots(*((1, 2) if plan.beside else (2, 1)), sharex=True, sharey=True)
    images = [_panel(axes, similarity, which, plan) for axes, which in zip(panels, _TITLES, strict=True)]
    figure.supylabel("class of the image", fontsize=9)
    figure.supxlabel("explained cloned class", fontsize=9)
    bar = figure.colorbar(images[0], ax=list(panels), ticks=[-1, 0, 1], pad=0.02, aspect=25 if plan.beside else 40)
    bar.set_label("mean cosine", labelpad=-4)
    figure.suptitle(_summary(similarity), fontsize=9, ha="left", x=0.01)
    return figure


@dataclass(frozen=True)
class _Plan:
    """Layout of a matrix in the width of a plot."""

    beside: bool
    """Whether the two panels are side by side."""
    numbers: bool
    """Whether the cells have numbers."""
    turned: bool
    """Whether the names of the columns are rotated by 90 degrees."""
    rows: range
    """Indices of the rows with names."""
    columns: range
    """Indices of the columns with names."""
    height: float
    """Height of the figure in inches."""


def _plan(rows: Sequence[str], columns: Sequence[str]) -> _Plan:
    numbers = len(columns) <= MAX_COLUMNS and len(rows) <= MAX_ROWS
    room = WIDTH - BAR - _length(rows)
    beside = not numbers or 2 * CELL * len(columns) <= room
    named_rows = range(0, len(rows), -(-len(rows) // MAX_ROWS))
    named_columns = range(0, len(columns), -(-len(columns) // MAX_COLUMNS))
    turned = _length(columns) > room / (2 if beside else 1) / len(named_columns)
    panel = max(0.9, ROW * len(named_rows))
    height = 1.15 + (_length(columns) if turned else 0.1) + (panel if beside else 2 * panel + 0.2)
    return _Plan(beside, numbers, turned, named_rows, named_columns, height)


def _length(names: Sequence[str]) -> float:
    """Length of the longest name in inches."""
    return LETTER * max(len(shortened(name)) for name in names)


def _panel(axes: Axes, similarity: Record, which: str, plan: _Plan) -> AxesImage:
    matrix, rows, columns = similarity[which], similarity["rows"], similarity["columns"]
    image = axes.imshow(matrix, cmap="cividis", vmin=-1, vmax=1, aspect="auto")
    axes.set_title(_TITLES[which])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(plan.columns, [shortened(columns[i]) for i in plan.columns], rotation=90 if plan.turned else 0)
    axes.set_yticks(plan.rows, [shortened(rows[i]) for i in plan.rows])
    if len(columns) < len(rows):
        axes.axhline(len(columns) - 0.5, color=PAPER, linewidth=2.5, zorder=2)
    for i in range(len(columns)):
        box = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.4, clip_on=False, zorder=3)
        axes.add_patch(box)
    if plan.numbers:
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                ink = PAPER if value < 0.1 else INK
                axes.text(j, i, two_places(value), ha="center", va="center", color=ink, fontsize=8)
    return image


def two_places(value: float) -> str:
    """Two decimals without the leading zero, e.g. `.65` or `−.37`, to save space."""
    text = f"{abs(value):.2f}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + text.removeprefix("0")


def _summary(similarity: Record) -> str:
    text = f"transferability {two_places(similarity['transferability'])}"
    if similarity["explicitness"] is None:
        return text
    explicit, ceiling = two_places(similarity["explicitness"]), two_places(similarity["ceiling"])
    return f"{text}, explicitness {explicit} (source {ceiling})"
