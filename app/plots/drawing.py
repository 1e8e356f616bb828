"""What all pictures share: size, colours, markers, labels, and files with the same bytes every time."""

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
"""Inches; with 9 point letters still readable when shown 400 pixels wide."""
DPI, DOTS = 200, 100 / 72
"""Of a PNG; and pixels a printer's point while a picture is laid out, at 100 an inch."""
PAPER, INK, FAINT = "white", "#222222", "#8a8a8a"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's, told apart with all common kinds of colour blindness."""
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
LONGEST = 22
"""Letters of a name that are shown."""
_SETTINGS: Any = {
    "figure.dpi": 72 * DOTS,
    "font.family": "DejaVu Sans",  # comes with matplotlib
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
    "text.parse_math": False,  # a class may be called $5 or a_b^c
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
    "svg.fonttype": "path",  # the same picture where the font is not installed
    "svg.hashsalt": "pnc",
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run `draw` with our settings; the user's are back afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_SETTINGS)
            return draw(*args, **kwargs)

    return wrapper


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches, with a canvas of its own."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


@styled
def save(figure: Figure, stem: Path | str) -> tuple[Path, Path]:
    """Write a figure twice; equal figures give equal bytes with one version of matplotlib.

    Args:
        figure: As a function of this package made it.
        stem: Path without suffix; its directory must exist.

    Returns:
        The PNG (200 dots an inch) and the SVG file.

    Raises:
        OSError: a file cannot be written.
    """
    png, svg = (Path(f"{stem}.{suffix}") for suffix in ("png", "svg"))
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg


@dataclass(frozen=True)
class Line:
    """One series: mean and standard deviation of y for every x, by x."""

    name: str
    x: list[float]
    y: list[float]
    spread: list[float]


def line(name: str, points: Iterable[tuple[float, float]]) -> Line:
    """Gather repeated measurements; one alone has no spread."""
    by_x: dict[float, list[float]] = {}
    for x, y in points:
        by_x.setdefault(x, []).append(y)
    rows = [(x, *mean_and_spread(ys)) for x, ys in sorted(by_x.items())]
    return Line(name, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a sample; 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def draw_lines(axes: Axes, lines: Sequence[Line], most: float = math.inf) -> None:
    """Lines with markers, and bands of one standard deviation, which end where no value can be: at 0 and `most`."""
    for number, one in enumerate(lines):
        colour, style = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        dashes: Any = LINES[number % len(LINES)]
        axes.plot(one.x, one.y, color=colour, linestyle=dashes, marker=style, label=one.name, zorder=3)
        if any(one.spread):
            rows = list(zip(one.y, one.spread, strict=True))
            low, high = [max(y - s, 0) for y, s in rows], [min(y + s, most) for y, s in rows]
            axes.fill_between(one.x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)


def shortened(name: str) -> str:
    """A name that fits beside a picture."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def percent(share: float) -> float:
    """0..1 as 0..100."""
    return 100 * share
