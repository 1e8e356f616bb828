"""Size, colours, markers and lines of all plots, and reproducible files."""

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")
Record = Mapping[str, Any]

WIDTH = 4.2
"""Width in inches; 9 point text stays readable when the plot is shown 400 pixels wide."""
DPI, DOTS = 200, 100 / 72
"""DPI: resolution of a PNG, in dots per inch. DOTS: pixels per point (1/72 inch) during layout, at 100 per inch."""
PAPER, INK, FAINT = "white", "#222222", "#8a8a8a"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""The palette of Okabe and Ito, which colour-blind readers can distinguish."""
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MAX_NAME = 22
"""Maximum characters of a name; a longer name is shortened."""
_SETTINGS: Any = {
    "figure.dpi": 72 * DOTS,
    "font.family": "DejaVu Sans",  # part of matplotlib
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,  # the name of a class may be $5 or a_b^c
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "savefig.dpi": DPI,
    "savefig.facecolor": PAPER,
    "savefig.bbox": None,
    "svg.fonttype": "path",  # the picture looks the same without the font
    "svg.hashsalt": "pnc",
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run `draw` with the settings of this package, and restore the user's settings afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_SETTINGS)
            return draw(*args, **kwargs)

    return wrapper


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure with its own canvas; height and width in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


@styled
def save(figure: Figure, stem: Path | str) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG; with one version of matplotlib equal figures give equal bytes.

    Args:
        figure: A figure of this package.
        stem: Path without suffix; the directory must exist.

    Returns:
        Paths of the PNG (200 dots per inch) and of the SVG.

    Raises:
        OSError: a file cannot be written.
    """
    png, svg = (Path(f"{stem}.{suffix}") for suffix in ("png", "svg"))
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg


@dataclass(frozen=True)
class Line:
    """One series: mean and standard deviation of y for each x, sorted by x."""

    name: str
    x: list[float]
    y: list[float]
    spread: list[float]


def line(name: str, points: Iterable[tuple[float, float]]) -> Line:
    """Group measurements by x; a single measurement has the spread 0."""
    by_x: dict[float, list[float]] = {}
    for x, y in points:
        by_x.setdefault(x, []).append(y)
    rows = [(x, *mean_and_spread(ys)) for x, ys in sorted(by_x.items())]
    return Line(name, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of a single value is 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def draw_lines(axes: Axes, lines: Sequence[Line], upper: float = math.inf) -> None:
    """Lines with markers, and bands of one standard deviation, clipped to the possible values 0 to `upper`."""
    for number, series in enumerate(lines):
        colour, style = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        dashes: Any = LINES[number % len(LINES)]
        axes.plot(series.x, series.y, color=colour, linestyle=dashes, marker=style, label=series.name, zorder=3)
        if any(series.spread):
            rows = list(zip(series.y, series.spread, strict=True))
            low, high = [max(y - s, 0) for y, s in rows], [min(y + s, upper) for y, s in rows]
            axes.fill_between(series.x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)


def shortened(name: str) -> str:
    """The name, cut to MAX_NAME characters."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def percent(share: float) -> float:
    """A share of 0..1 as 0..100."""
    return 100 * share
