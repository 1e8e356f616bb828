"""Line plot of cost over the number of positions, classes or images."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from app.plots.drawing import Record, draw_lines, line, new_figure, styled
from app.plots.labels import name_lines


@styled
def cost_curve(
    records: Sequence[Record],
    *,
    x: str,
    y: str = "seconds",
    series: str | None = None,
    x_label: str,
    y_label: str = "time (s)",
    logarithmic: bool = False,
) -> Figure:
    """One field over another, with one line per series; a band shows the spread of repeated measurements.

    Args:
        records: Measurements; at least one.
        x: Field of the horizontal axis, e.g. `positions`, `classes` or `images`.
        y: Field of the vertical axis.
        series: Field with the name of the series; None: one line.
        x_label: Label of the horizontal axis, with the unit.
        y_label: Label of the vertical axis, with the unit.
        logarithmic: Use logarithmic scales for both axes.
    """
    names = list(dict.fromkeys(str(r[series]) if series else "" for r in records))
    figure = new_figure(2.8)
    axes = figure.subplots()
    lines = [line(n, ((r[x], r[y]) for r in records if not series or str(r[series]) == n)) for n in names]
    draw_lines(axes, lines)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True)
    name_lines(axes, lines)
    return figure
