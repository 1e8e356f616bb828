"""Line plot of accuracy and size over the kept share of the tail."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from app.plots.drawing import Line, Record, draw_lines, line, new_figure, percent, styled
from app.plots.labels import name_lines


@styled
def masking_curve(points: Sequence[Record]) -> Figure:
    """Joint accuracy for each localizer, and below it the size of the whole module.

    Bands are one standard deviation over the seeds.

    Args:
        points: Records with `keep`, `average` and `size` (shares), `localizer` and `seed`; at least one.
    """
    figure = new_figure(3.5)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.3])
    curves = _by_localizer(points, "average")
    draw_lines(top, curves, upper=100)
    top.set_ylabel("joint accuracy (%)")
    names = dict.fromkeys(p["localizer"] for p in points)
    sizes = line("", ((percent(p["keep"]), percent(p["size"])) for p in points if p["localizer"] == next(iter(names))))
    draw_lines(bottom, [sizes])
    bottom.set_ylabel("size (% of\nsource)")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("kept share of the tail (%)")
    for axes in (top, bottom):
        axes.grid(True)
        axes.xaxis.set_major_formatter(PercentFormatter(100, symbol=""))
    figure.align_ylabels([top, bottom])
    name_lines(top, curves)
    return figure


def _by_localizer(points: Sequence[Record], value: str) -> list[Line]:
    names = list(dict.fromkeys(p["localizer"] for p in points))
    return [
        line(name, ((percent(p["keep"]), percent(p[value])) for p in points if p["localizer"] == name))
        for name in names
    ]
