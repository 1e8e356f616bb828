"""What more positions, classes or images cost."""

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
    """One number over another, a line for each series; repeated measurements become a band.

    Args:
        records: At least one.
        x: Field along the horizontal axis, e.g. `positions`, `classes` or `images`.
        y: Field along the vertical axis.
        series: Field that names the line; None draws one line.
        x_label: With its unit.
        y_label: With its unit.
        logarithmic: Both axes.
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
