"""Bar chart of the accuracies of several methods."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.plots.drawing import COLOURS, INK, MAX_NAME, PAPER, Record, mean_and_spread, new_figure, percent, styled

_SIDES = (("old", "<", "old classes"), ("new", "D", "cloned classes"))


@styled
def accuracy_bars(records: Sequence[Record], highlight: Sequence[str] = ()) -> Figure:
    """One bar per method: mean joint accuracy, with marks for old and cloned classes and a whisker for the spread.

    Several records of a method (seeds, splits) are shown as mean and standard deviation.

    Args:
        records: Records with `method`, `old`, `new` and `average` (0..1), in the order of the bars; at least one.
        highlight: Methods whose bars have a strong colour and whose names are bold.
    """
    names = list(dict.fromkeys(r["method"] for r in records))
    figure = new_figure(1.15 + 0.31 * len(names))
    axes = figure.subplots()
    for place, name in enumerate(names):
        _bar(axes, place, [r for r in records if r["method"] == name], strong=name in highlight)
    axes.set_yticks(
        range(len(names)), ["\n".join(textwrap.wrap(name, MAX_NAME)[:2]) for name in names], linespacing=0.95
    )
    for name, tick_label in zip(names, axes.get_yticklabels(), strict=True):
        tick_label.set_fontweight("bold" if name in highlight else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("joint accuracy (%), all classes competing")
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for _, marker, label in _SIDES:
        axes.plot([], [], linestyle="none", marker=marker, color=INK, markerfacecolor=PAPER, label=label)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, handletextpad=0.2, columnspacing=1.0)
    return figure


def _bar(axes: Axes, place: int, rows: Sequence[Record], *, strong: bool) -> None:
    mean, spread = mean_and_spread([percent(r["average"]) for r in rows])
    axes.barh(place, mean, height=0.62, color=COLOURS[0] if strong else "#b9c6d0", zorder=2)
    if len(rows) > 1:
        axes.errorbar(mean, place, xerr=spread, color=INK, capsize=2.5, linewidth=1.2, zorder=4)
    for side, marker, _ in _SIDES:
        value, _ = mean_and_spread([percent(r[side]) for r in rows])
        axes.plot(
            value, place, marker=marker, color=INK, markerfacecolor=PAPER, markersize=4.5, zorder=5, clip_on=False
        )
    text = f"{mean:.1f}" + (f" ± {spread:.1f}" if len(rows) > 1 else "")
    weight = "bold" if strong else "normal"
    axes.annotate(
        text, (1, place), xycoords=("axes fraction", "data"), xytext=(9, 0), textcoords="offset points", va="center"
    ).set_fontweight(weight)
