"""Scatter plot of accuracy and size of the positions of a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.plots.drawing import COLOURS, FAINT, INK, PAPER, Line, Record, new_figure, percent, shortened, styled
from app.plots.labels import Label, place_labels

Place = tuple[float, float]
"""Size in the unit of the axis, and accuracy in percent."""


@styled
def position_curve(points: Sequence[Record], source_numbers: int | None = None) -> Figure:
    """Accuracy over module size of each position, with the Pareto front and the winner.

    A hollow circle is a position that was screened without training. A line joins the circle to a square, which
    is the same position after training. The winner, the trained positions and the front have names, as far as
    there is space.

    Args:
        points: Records with `target_position`, `source_position`, `screened` and `trained` (joint
            accuracies, 0..1 or None), `screened_parameters` and `parameters` (sizes of the module at these accuracies),
            `front` and `winner`; at least one.
        source_numbers: Size of the whole source in numbers; sizes are then drawn as shares of it. None: absolute sizes.
    """
    figure = new_figure(3.3)
    axes = figure.subplots()
    marks = [_marks(p, 100 / source_numbers if source_numbers else 1e-3) for p in points]
    lines = _lines(marks)
    for line in lines:
        axes.plot(line.x, line.y, color=FAINT, linestyle="--" if line.name else "-", linewidth=1, zorder=1)
    for mark in marks:
        _draw(axes, mark)
    axes.set_xlabel("size of the module (% of source)" if source_numbers else "size of the module (thousand numbers)")
    axes.set_ylabel("joint accuracy (%)")
    axes.grid(True)
    axes.margins(0.12, 0.16)
    order = sorted(marks, key=lambda m: (not m.winner, m.trained is None, not m.front))
    named = [Label(m.name, (m.last,), needed=m.winner) for m in order if m.winner or m.front or m.trained]
    _legend(axes, points)
    place_labels(axes, named, [place for m in marks for place in (m.screened, m.trained) if place], lines)
    return figure


@dataclass(frozen=True)
class _Mark:
    """Marks of one position in the plot."""

    name: str
    screened: Place | None
    trained: Place | None
    front: bool
    winner: bool

    @property
    def last(self) -> Place:
        """The trained mark, or else the screened mark."""
        place = self.trained or self.screened
        assert place is not None
        return place


def _marks(point: Record, unit: float) -> _Mark:
    screened, trained = (
        None if point[score] is None else (point[size] * unit, percent(point[score]))
        for score, size in (("screened", "screened_parameters"), ("trained", "parameters"))
    )
    target, source = shortened(point["target_position"]), shortened(point["source_position"])
    name = target if target == source else f"{target}→{source}"
    return _Mark(name, screened, trained, point["front"], point["winner"])


def _lines(marks: Sequence[_Mark]) -> list[Line]:
    """The steps of the Pareto front, and the lines that join the two marks of a position."""
    screened = any(m.screened for m in marks)
    front = sorted(m.screened if screened and m.screened else m.last for m in marks if m.front)
    corners = [front[:1], *([(b[0], a[1]), b] for a, b in pairwise(front))]
    steps = [place for row in corners for place in row]
    joints = [[m.screened, m.trained] for m in marks if m.screened and m.trained]
    named = [("front", steps), *(("", joint) for joint in joints)]
    return [Line(name, [x for x, _ in row], [y for _, y in row], []) for name, row in named]


def _draw(axes: Axes, mark: _Mark) -> None:
    if mark.screened:
        axes.plot(*mark.screened, marker="o", markerfacecolor=PAPER, color=COLOURS[0], zorder=3)
    if mark.trained:
        axes.plot(*mark.trained, marker="s", color=COLOURS[0], zorder=4)
    if mark.winner:
        axes.plot(*mark.last, marker="*", markersize=13, color=COLOURS[1], markeredgecolor=INK, zorder=5)


def _legend(axes: Axes, points: Sequence[Record]) -> None:
    """Add a legend of the kinds of marks that the plot contains."""
    both = any(p["screened"] is not None for p in points)
    marks: list[tuple[bool, dict[str, Any]]] = [
        (both, {"marker": "o", "markerfacecolor": PAPER, "color": COLOURS[0], "label": "screened"}),
        (any(p["trained"] is not None for p in points), {"marker": "s", "color": COLOURS[0], "label": "trained"}),
        (
            any(p["winner"] for p in points),
            {"marker": "*", "markersize": 11, "color": COLOURS[1], "markeredgecolor": INK, "label": "chosen"},
        ),
        (sum(bool(p["front"]) for p in points) > 1, {"color": FAINT, "linestyle": "--", "label": "front"}),
    ]
    for present, style in marks:
        if present:
            axes.plot([], [], **{"linestyle": "none", **style})
    axes.figure.legend(loc="outside upper left", ncols=4, frameon=False, handletextpad=0.3, columnspacing=1.0)
