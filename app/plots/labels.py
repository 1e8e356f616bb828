"""Names beside points and lines, where they cover nothing."""

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
"""Left, bottom, right and top in pixels: (4,), or (M, 4)."""


def name_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Each line's name beside it, where it is farthest from the others; call it when the axes are as they will be."""
    if len(lines) < 2:
        return
    labels = []
    for number, one in enumerate(lines):
        others = [other for other in lines if other is not one]
        ranked = sorted((-_gap(x, y, others), x, y) for x, y in zip(one.x, one.y, strict=True))
        points = tuple((x, y) for _, x, y in ranked)
        labels.append(Label(shortened(one.name), points, COLOURS[number % len(COLOURS)], needed=True))
    place_labels(axes, labels, [(x, y) for one in lines for x, y in zip(one.x, one.y, strict=True)], lines)


def _gap(x: float, y: float, others: Sequence[Line]) -> float:
    """How far the nearest other line is from a point, at the point of it that is nearest to x."""
    rivals = [min(zip(other.x, other.y, strict=True), key=lambda point: abs(point[0] - x)) for other in others]
    return min(abs(y - height) for _, height in rivals)


@dataclass(frozen=True)
class Label:
    """A text that may stand beside any of some points."""

    text: str
    points: tuple[tuple[float, float], ...]
    """In data coordinates, the best first."""
    colour: str = INK
    needed: bool = False
    """Written even where there is no room."""


def place_labels(
    axes: Axes, labels: Sequence[Label], points: Sequence[tuple[float, float]], lines: Sequence[Line] = ()
) -> None:
    """Write each text beside its point where it covers neither another text nor a mark, nor a line.

    Args:
        axes: With final limits and scales.
        labels: The most important first; one that finds no room is left out unless it is needed.
        points: Where marks are.
        lines: What runs between marks.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = axes.get_window_extent(renderer).extents
    taken = np.concatenate([_marks(axes, points, 3.5), _marks(axes, [p for one in lines for p in _along(one)], 1)])
    for label in labels:
        note = _annotation(axes, label)
        size = note.get_window_extent(renderer).size
        places = [(point, where) for point in label.points for where in _PLACES]
        boxes = [_box(axes.transData.transform(point), size, where) for point, where in places]
        costs = [_cost(box, taken, inside) for box in boxes]
        room = next((i for i, cost in enumerate(costs) if not cost), None)
        chosen = costs.index(min(costs)) if room is None and label.needed else room
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
    """Squares of `reach` printer's points around each point."""
    half = reach * DOTS
    centres = axes.transData.transform(np.asarray(points, float).reshape(-1, 2))
    return np.concatenate([centres - half, centres + half], axis=1)


def _along(one: Line, steps: int = 25) -> list[tuple[float, float]]:
    """Points on a line, close enough that no letter slips between them."""
    rows = list(zip(one.x, one.y, strict=True))
    shares = [i / steps for i in range(steps + 1)]
    return [(a + (c - a) * s, b + (d - b) * s) for (a, b), (c, d) in pairwise(rows) for s in shares]


def _annotation(axes: Axes, label: Label) -> Annotation:
    weight = "normal" if label.colour == INK else "bold"
    style: Any = {"color": label.colour, "fontsize": 8, "fontweight": weight, "zorder": 6, "in_layout": False}
    return axes.annotate(label.text, label.points[0], xytext=(0, 0), textcoords="offset points", **style)


def _box(point: Any, size: Any, place: _Place) -> Boxes:
    """Where a text would be, a little smaller: letters do not fill their box."""
    x, y, ha, va = place
    left = point[0] + x * DOTS - size[0] * {"left": 0.0, "center": 0.5, "right": 1.0}[ha]
    bottom = point[1] + y * DOTS - size[1] * {"bottom": 0.0, "center": 0.5, "top": 1.0}[va]
    return np.array([left + 1.5, bottom + 1.5, left + size[0] - 1.5, bottom + size[1] - 1.5])


def _cost(box: Boxes, taken: Boxes, inside: Any) -> float:
    """Square pixels of a text that cover something or lie outside."""
    hidden = np.prod(box[2:] - box[:2]) - _overlap(box, inside[None]).sum()
    return round(float(hidden + _overlap(box, taken).sum()), 3)


def _overlap(box: Boxes, others: Boxes) -> Boxes:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    area: Boxes = np.prod(sides.clip(min=0), axis=1)
    return area
