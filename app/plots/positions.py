"""Accuracy and size of every position that a search tried."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.plots.drawing import (
    COLOURS,
    FAINT,
    INK,
    PAPER,
    Line,
    Record,
    new_figure,
    percent,
    shortened,
    styled,
)
from app.plots.labels import Label, place_labels

_FRONT: Any = {"where": "post", "color": FAINT, "linestyle": "--", "linewidth": 1, "zorder": 1}


@styled
def position_curve(points: Sequence[Record], source_numbers: int | None = None) -> Figure:
    """A scatter of positions, with the front, and the winner marked.

    Hollow circles were screened without training; a filled square above or below is the
    same position after training. Named are the winner, trained positions and the front, as
    far as there is room.

    Args:
        points: Records with `target_position`, `source_position`, `screened` and `trained` (joint
            accuracies, 0..1 or None), `parameters`, `front` and `winner`; at least one.
        source_numbers: Numbers of the whole source; sizes are then shares of it.
    """
    figure = new_figure(3.3)
    axes = figure.subplots()
    unit = 100 / source_numbers if source_numbers else 1e-3
    seen = [(p["parameters"] * unit, p) for p in points]
    axes.step([x for x, _ in _front(seen)], [y for _, y in _front(seen)], **_FRONT)
    for size, p in seen:
        _point(axes, size, p)
    axes.set_xlabel("size of the module (% of source)" if source_numbers else "size of the module (thousand numbers)")
    axes.set_ylabel("joint accuracy (%)")
    axes.grid(True)
    axes.margins(0.12, 0.16)
    where = [(size, percent(p[key])) for size, p in seen for key in ("screened", "trained") if p[key] is not None]
    order = sorted(seen, key=lambda row: (not row[1]["winner"], row[1]["trained"] is None, not row[1]["front"]))
    named = [
        Label(_name(p), ((size, percent(_height(p))),), needed=p["winner"])
        for size, p in order
        if p["winner"] or p["front"] or p["trained"] is not None
    ]
    _key(axes, points)
    place_labels(axes, named, where, _thin_lines(seen))
    return figure


def _thin_lines(seen: Sequence[tuple[float, Record]]) -> list[Line]:
    """The front's steps, and what joins a position's two marks."""
    front = _front(seen)
    steps = [[a, (b[0], a[1]), b] for a, b in pairwise(front)]
    joints = [
        [(size, percent(p["screened"])), (size, percent(p["trained"]))]
        for size, p in seen
        if p["screened"] is not None and p["trained"] is not None
    ]
    return [Line("", [x for x, _ in one], [y for _, y in one], []) for one in [*steps, *joints]]


def _height(point: Record) -> float:
    return float(point["screened"] if point["trained"] is None else point["trained"])


def _name(point: Record) -> str:
    target, source = shortened(point["target_position"]), shortened(point["source_position"])
    return target if target == source else f"{target}→{source}"


def _front(seen: Sequence[tuple[float, Record]]) -> list[tuple[float, float]]:
    key = "screened" if any(p["screened"] is not None for _, p in seen) else "trained"
    return sorted((size, percent(p[key])) for size, p in seen if p["front"])


def _point(axes: Axes, size: float, p: Record) -> None:
    screened, trained = (None if p[key] is None else percent(p[key]) for key in ("screened", "trained"))
    if screened is not None and trained is not None:
        axes.plot([size, size], [screened, trained], color=FAINT, linewidth=0.8, zorder=2)
    if screened is not None:
        axes.plot(size, screened, marker="o", markerfacecolor=PAPER, color=COLOURS[0], zorder=3)
    if trained is not None:
        axes.plot(size, trained, marker="s", color=COLOURS[0], zorder=4)
    if p["winner"]:
        height = screened if trained is None else trained
        assert height is not None
        axes.plot(size, height, marker="*", markersize=13, color=COLOURS[1], markeredgecolor=INK, zorder=5)


def _key(axes: Axes, points: Sequence[Record]) -> None:
    """What the marks mean: only those that are there."""
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
    for there, style in marks:
        if there:
            axes.plot([], [], **{"linestyle": "none", **style})
    axes.figure.legend(loc="outside upper left", ncols=4, frameon=False, handletextpad=0.3, columnspacing=1.0)
