"""Place names beside points and lines without covering them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from numpy.typing import NDArray

from app.plots.drawing import COLOURS, DOTS, INK, Line, shortened

Boxes = NDArray[np.float64]
"""Left, bottom, right and top in pixels, float64: shape (4,), or (M, 4) for M boxes."""


def name_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each line's name where the line is farthest from the other lines; call after setting limits and scales."""
    if len(lines) < 2:
        return
    labels = []
    for number, series in enumerate(lines):
        others = [other for other in lines if other is not series]
        ranked = sorted((-_gap(x, y, others), x, y) for x, y in zip(series.x, series.y, strict=True))
        points = tuple((x, y) for _, x, y in ranked)
        labels.append(Label(shortened(series.name), points, COLOURS[number % len(COLOURS)], needed=True))
    place_labels(axes, labels, [(x, y) for series in lines for x, y in zip(series.x, series.y, strict=True)], lines)


def _gap(x: float, y: float, others: Sequence[Line]) -> float:
    """Vertical distance from (x, y) to the nearest other line, at that line's point nearest to x."""
    nearest = [min(zip(other.x, other.y, strict=True), key=lambda point: abs(point[0] - x)) for other in others]
    return min(abs(y - height) for _, height in nearest)


@dataclass(frozen=True)
class Label:
    """A text and the points beside which it may be written."""

    text: str
    points: tuple[tuple[float, float], ...]
    """Points in data coordinates, the best point first."""
    colour: str = INK
    needed: bool = False
    """Write the text even if it covers something."""


def place_labels(
    axes: Axes, labels: Sequence[Label], points: Sequence[tuple[float, float]], lines: Sequence[Line] = ()
) -> None:
    """Write each text beside one of its points without covering a text, a mark or a line.

    Args:
        axes: Axes with final limits and scales.
        labels: Texts, the most important first; a text without free space is omitted unless it is needed.
        points: Positions of the marks.
        lines: Lines of the plot.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = axes.get_window_extent(renderer).extents
    taken = np.concatenate(
        [_marks(axes, points, 3.5), _marks(axes, [point for series in lines for point in _along(series)], 1)]
    )
    for label in labels:
        note = _annotation(axes, label)
        size = note.get_window_extent(renderer).size
        places = [(point, where) for point in label.points for where in _PLACES]
        boxes = [_box(axes.transData.transform(point), size, where) for point, where in places]
        costs = [_cost(box, taken, inside) for box in boxes]
        free = next((i for i, cost in enumerate(costs) if not cost), None)
        chosen = costs.index(min(costs)) if free is None and label.needed else free
        if chosen is None:
            note.remove()
            continue
        taken = np.concatenate([taken, [boxes[chosen]]])
        note.xy, (x, y, ha, va) = places[chosen]
        note.set(position=(x, y), ha=ha, va=va)


_Place = tuple[float, float, Literal["left", "center", "right"], Literal["bottom", "center", "top"]]
_PLACES: list[_Place] = [
    (7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"), (0, -7, "center", "top"),
    (6, 6, "left", "bottom"), (6, -6, "left", "top"), (-6, 6, "right", "bottom"), (-6, -6, "right", "top"),
]  # fmt: skip


def _marks(axes: Axes, points: Sequence[tuple[float, float]], reach: float) -> Boxes:
    """A square around each point that extends `reach` points (1/72 inch) to each side."""
    half = reach * DOTS
    centres = axes.transData.transform(np.asarray(points, float).reshape(-1, 2))
    return np.concatenate([centres - half, centres + half], axis=1)


def _along(series: Line, steps: int = 25) -> list[tuple[float, float]]:
    """Points on a line, closer to each other than the size of a letter."""
    rows = list(zip(series.x, series.y, strict=True))
    shares = [i / steps for i in range(steps + 1)]
    return [(a + (c - a) * s, b + (d - b) * s) for (a, b), (c, d) in pairwise(rows) for s in shares]


def _annotation(axes: Axes, label: Label) -> Annotation:
    weight = "normal" if label.colour == INK else "bold"
    style: Any = {"color": label.colour, "fontsize": 8, "fontweight": weight, "zorder": 6, "in_layout": False}
    return axes.annotate(label.text, label.points[0], xytext=(0, 0), textcoords="offset points", **style)


def _box(point: Any, size: Any, place: _Place) -> Boxes:
    """The box of a text at a place, reduced by 1.5 pixels on each side because letters do not fill their box."""
    x, y, ha, va = place
    left = point[0] + x * DOTS - size[0] * {"left": 0.0, "center": 0.5, "right": 1.0}[ha]
    bottom = point[1] + y * DOTS - size[1] * {"bottom": 0.0, "center": 0.5, "top": 1.0}[va]
    return np.array([left + 1.5, bottom + 1.5, left + size[0] - 1.5, bottom + size[1] - 1.5])


def _cost(box: Boxes, taken: Boxes, inside: Any) -> float:
    """Area of a text that covers something or lies outside the axes, in square pixels."""
    hidden = np.prod(box[2:] - box[:2]) - _overlap(box, inside[None]).sum()
    return round(float(hidden + _overlap(box, taken).sum()), 3)


def _overlap(box: Boxes, others: Boxes) -> Boxes:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    area: Boxes = np.prod(sides.clip(min=0), axis=1)
    return area
