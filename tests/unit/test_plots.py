import hashlib
import itertools
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from app import plots
from app.plots.drawing import COLOURS, LINES, MARKERS, line
from app.plots.matrix import two_places

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def _similarity(rows: int = 5, columns: int = 3, names: list[str] | None = None) -> dict[str, Any]:
    """Recognisable numbers: row i, column j of the module is (10 i + j - 50) / 100."""
    names = names or [NAMES[i % 10] + str(i // 10 or "") for i in range(rows)]
    module = [[(10 * i + j - 50) / 100 for j in range(columns)] for i in range(rows)]
    source = [[1.0 if i == j else -0.25 for j in range(columns)] for i in range(rows)]
    figures = {"transferability": 0.82, "explicitness": 0.91, "ceiling": 1.21, "shuffled": 0.5}
    return {"rows": names, "columns": names[:columns], "module": module, "source": source, **figures}


def _masking(seeds: int = 2) -> list[dict[str, Any]]:
    return [
        {"keep": keep, "localizer": name, "seed": seed, "average": 0.9 * keep + lost + 0.02 * seed, "size": keep}
        for seed in range(seeds)
        for keep in (1.0, 0.5, 0.1)
        for name, lost in (("fisher", 0.05), ("random", -0.05))
    ]


def _position(
    name: str, size: int, screened: float | None, trained: float | None = None, grown: int = 0, **marks: bool
) -> dict[str, Any]:
    sizes = {"screened_parameters": None if screened is None else size - grown, "parameters": size}
    found = {"target_position": name, "source_position": name, "screened": screened, "trained": trained, **sizes}
    return {**found, "front": False, "winner": False, **marks}


POSITIONS = [
    _position("layer1.0", 100, 0.7, front=True),
    _position("layer1.1", 520, 0.92, 0.97, 20, front=True, winner=True),
    _position("layer2.0", 600, 0.85),
    _position("layer3.0", 900, 0.95, 0.96, front=True),
]
METHODS = [
    {"method": name, "old": old + noise, "new": new + noise, "average": (old + new) / 2 + noise}
    for name, old, new in (("direct ensemble", 0.7, 0.72), ("cloned module", 0.8, 0.84))
    for noise in (-0.01, 0.01)
]
COSTS = [
    {"positions": n, "how": how, "seconds": factor * n + noise}
    for n in (1, 2, 4, 8)
    for how, factor in (("screened", 1.5), ("trained", 4.0))
    for noise in (0.0, 0.5)
]
GRID = [
    {"target": target, "source": source, "avg": average + noise}
    for target, own in (("cnn", 0.7), ("vgg", 0.8))
    for source, average in (("none", own), ("cnn", 0.75), ("vgg", 0.82))
    for noise in (-0.01, 0.01)
]


def _grid() -> Figure:
    return plots.margin_grid(
        GRID, row="target", column="source", value="avg", alone="none", row_label="target", column_label="source"
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    "similarity": lambda: plots.similarity_matrix(_similarity()),
    "masking": lambda: plots.masking_curve(_masking()),
    "positions": lambda: plots.position_curve(POSITIONS, 1000),
    "accuracy": lambda: plots.accuracy_bars(METHODS, ["cloned module"]),
    "grid": _grid,
    "costs": lambda: plots.cost_curve(COSTS, x="positions", series="how", x_label="positions", logarithmic=True),
}


def _texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def _points(one: Line2D) -> list[tuple[float, float]]:
    return [(round(float(x), 6), round(float(y), 6)) for x, y in zip(one.get_xdata(), one.get_ydata(), strict=True)]


def _ticks(axes: Axes, axis: str) -> list[str]:
    return [label.get_text() for label in getattr(axes, f"get_{axis}ticklabels")()]


def test_the_matrix_holds_its_numbers_names_and_controls() -> None:
    similarity = _similarity()
    figure = plots.similarity_matrix(similarity)
    module, source = figure.axes[:2]
    assert np.allclose(module.images[0].get_array(), similarity["module"])
    assert np.allclose(source.images[0].get_array(), similarity["source"])
    assert _texts(module) == [two_places(v) for row in similarity["module"] for v in row]
    assert "1.00" in _texts(source)
    assert _ticks(module, "y") == similarity["rows"]
    assert _ticks(module, "x") == similarity["columns"]
    assert module.images[0].get_cmap().name == "cividis"
    assert (module.images[0].norm.vmin, module.images[0].norm.vmax) == (-1, 1)
    assert "transferability .82, explicitness .91 (source 1.21)" in figure.get_suptitle()


def test_a_matrix_without_a_rest_says_nothing_of_explicitness() -> None:
    figure = plots.similarity_matrix({**_similarity(1, 1), "explicitness": None, "ceiling": None})
    assert figure.get_suptitle() == "transferability .82"


@pytest.mark.parametrize(("value", "text"), [(0.654, ".65"), (-0.37, "−.37"), (1.0, "1.00"), (-0.001, ".00")])
def test_numbers_in_cells_are_short(value: float, text: str) -> None:
    assert two_places(value) == text


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (10, 2), (10, 5), (10, 10), (100, 50)])
def test_a_matrix_of_any_size_fits_the_width(rows: int, columns: int) -> None:
    figure = plots.similarity_matrix(_similarity(rows, columns))
    assert figure.get_size_inches()[0] == pytest.approx(4.2)
    assert figure.get_size_inches()[1] < 9
    assert len(_ticks(figure.axes[0], "y")) <= 20
    assert bool(_texts(figure.axes[0])) == (columns <= 8)


def test_the_masking_curve_has_a_line_a_localizer_with_its_spread_and_its_name() -> None:
    top, bottom = plots.masking_curve(_masking()).axes
    lines = {one.get_label(): one for one in top.lines}
    assert set(lines) == {"fisher", "random"}
    assert list(lines["fisher"].get_xdata()) == pytest.approx([10, 50, 100])
    assert list(lines["fisher"].get_ydata()) == pytest.approx([15, 51, 96])  # means over both seeds
    assert sorted(_texts(top)) == ["fisher", "random"]
    assert len(top.collections) == 2
    low, high = (function(top.collections[0].get_paths()[0].vertices[:, 1]) for function in (min, max))
    spread = 2 / 2**0.5  # of 14 and 16: the sample's standard deviation
    assert (low, high) == (pytest.approx(15 - spread), pytest.approx(96 + spread))
    assert list(bottom.lines[0].get_ydata()) == pytest.approx([10, 50, 100])
    assert "%" in top.get_ylabel()
    assert "%" in bottom.get_xlabel()


def test_no_band_leaves_what_an_accuracy_can_be() -> None:
    points = [{**p, "average": 1.0 - 0.1 * p["seed"]} for p in _masking()]
    top = plots.masking_curve(points).axes[0]
    assert max(top.collections[0].get_paths()[0].vertices[:, 1]) == 100


def test_one_seed_has_no_band_and_one_localizer_needs_no_name() -> None:
    top = plots.masking_curve([p for p in _masking(1) if p["localizer"] == "fisher"]).axes[0]
    assert not top.collections
    assert not _texts(top)


def test_the_position_curve_shows_every_trial_the_front_and_the_winner() -> None:
    axes = plots.position_curve(POSITIONS, 1000).axes[0]
    shown: dict[str, list[tuple[float, float]]] = {}
    for one in axes.lines:
        shown.setdefault(str(one.get_marker()), []).extend(_points(one))
    assert sorted(shown["o"]) == [(10, 70), (50, 92), (60, 85), (90, 95)]
    assert sorted(shown["s"]) == [(52, 97), (90, 96)]
    assert shown["*"] == [(52, 97)]
    (front,) = [one for one in axes.lines if one.get_linestyle() == "--" and len(one.get_xdata())]
    assert _points(front) == [(10, 70), (50, 70), (50, 92), (90, 92), (90, 95)]
    joints = [_points(one) for one in axes.lines if one.get_linestyle() == "-" and len(one.get_xdata()) == 2]
    assert joints == [[(50, 92), (52, 97)], [(90, 95), (90, 96)]]
    assert "layer1.1" in _texts(axes)
    assert "layer2.0" not in _texts(axes)  # neither on the front nor trained
    assert "% of source" in axes.get_xlabel()


def test_sizes_without_a_source_are_thousands_and_one_trial_is_enough() -> None:
    axes = plots.position_curve([_position("layer1.1", 5000, None, 0.9, winner=True)]).axes[0]
    (star,) = [one for one in axes.lines if one.get_marker() == "*" and len(one.get_xdata())]
    assert list(star.get_xdata()) == [5]
    assert "thousand numbers" in axes.get_xlabel()
    assert _texts(axes) == ["layer1.1"]


def test_positions_in_two_networks_are_named_by_both() -> None:
    point = {**POSITIONS[1], "source_position": "blocks.2"}
    assert "layer1.1→blocks.2" in _texts(plots.position_curve([point]).axes[0])


def test_labels_cover_neither_each_other_nor_points() -> None:
    crowd = [
        _position(f"layer{i}.{j}", 100 * i + 17 * j, 0.5 + 0.07 * i, front=True) for i in range(6) for j in range(4)
    ]
    figure = plots.position_curve(crowd)
    axes, canvas = figure.axes[0], figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()).padded(-2) for text in axes.texts]
    assert len(boxes) >= 3
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    points = axes.transData.transform([(p["parameters"] / 1000, 100 * p["screened"]) for p in crowd])
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_bars_are_means_with_spread_and_both_sides() -> None:
    axes = plots.accuracy_bars(METHODS, ["cloned module"]).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([71, 82])
    assert _ticks(axes, "y") == ["direct ensemble", "cloned module"]
    spread = 2 / 2**0.5
    assert _texts(axes) == [f"71.0 ± {spread:.1f}", f"82.0 ± {spread:.1f}"]
    whiskers = [
        container.lines[2][0].get_segments()[0][:, 0] for container in axes.containers if hasattr(container, "lines")
    ]
    assert whiskers[0] == pytest.approx([71 - spread, 71 + spread])
    sides = {
        m: [float(one.get_xdata()[0]) for one in axes.lines if one.get_marker() == m and len(one.get_xdata())]
        for m in "<D"
    }
    assert sides == {"<": pytest.approx([70, 80]), "D": pytest.approx([72, 84])}
    assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["normal", "bold"]
    assert axes.get_xlim() == (0, 100)


def test_one_record_a_method_has_no_spread() -> None:
    axes = plots.accuracy_bars(METHODS[:1]).axes[0]
    assert _texts(axes) == ["70.0"]


def test_costs_have_a_line_a_series_and_labels_with_units() -> None:
    axes = plots.cost_curve(COSTS, x="positions", series="how", x_label="positions searched").axes[0]
    lines = {one.get_label(): list(one.get_ydata()) for one in axes.lines}
    assert lines == {
        "screened": pytest.approx([1.75, 3.25, 6.25, 12.25]),
        "trained": pytest.approx([4.25, 8.25, 16.25, 32.25]),
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("positions searched", "time (s)")
    assert sorted(_texts(axes)) == ["screened", "trained"]


def test_what_is_counted_has_whole_numbers_along_its_axis() -> None:
    figure = plots.cost_curve([{"positions": n, "seconds": n} for n in (1, 2, 3)], x="positions", x_label="positions")
    figure.draw_without_rendering()
    ticks = _ticks(figure.axes[0], "x")
    assert {"1", "2", "3"} <= set(ticks)
    assert all(tick.isdigit() for tick in ticks)


def test_logarithmic_axes_have_plain_numbers() -> None:
    figure = plots.cost_curve(COSTS, x="positions", x_label="positions", logarithmic=True)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert {"1", "2", "5"} <= set(_ticks(axes, "x"))
    assert not any("$" in text for text in [*_ticks(axes, "x"), *_ticks(axes, "y")])


def test_repeated_measurements_are_gathered_by_x() -> None:
    found = line("a", [(2, 10), (1, 4), (2, 20)])
    assert (found.x, found.y) == ([1, 2], [4, 15])
    assert found.spread == [0, pytest.approx(50**0.5)]


def test_the_grid_says_what_every_pair_has_and_what_it_gains() -> None:
    axes = _grid().axes[0]
    assert _texts(axes) == ["70.0", "75.0\n(+5.0)", "82.0\n(+12.0)", "80.0", "75.0\n(−5.0)", "82.0\n(+2.0)"]
    assert (_ticks(axes, "x"), _ticks(axes, "y")) == (["none", "cnn", "vgg"], ["cnn", "vgg"])
    assert axes.images[0].get_array().tolist() == [pytest.approx([0, 5, 12]), pytest.approx([0, -5, 2])]


def test_series_differ_without_colours() -> None:
    axes = plots.cost_curve(COSTS, x="positions", series="how", x_label="positions").axes[0]
    styles = [(one.get_marker(), one.get_linestyle()) for one in axes.lines]
    assert len({marker for marker, _ in styles}) == len({dashes for _, dashes in styles}) == 2
    assert len(set(MARKERS)) == len({str(dashes) for dashes in LINES}) == len(set(COLOURS)) == 6


def test_odd_names_are_shown_as_they_are() -> None:
    names = ["$x_1$", "a_b^c", "$\\nope$", "the longest name of all classes there are"]
    figure = plots.similarity_matrix(_similarity(4, 2, names))
    assert _ticks(figure.axes[0], "y") == [*names[:3], "the longest name of a…"]
    figure.draw_without_rendering()
    plots.accuracy_bars([{**METHODS[0], "method": "$5 & 100 % <b>"}]).draw_without_rendering()


@pytest.mark.parametrize("kind", FIGURES)
def test_files_are_pictures_with_the_same_bytes_every_time(kind: str, tmp_path: Path) -> None:
    digests = []
    for attempt in ("one", "two"):
        png, svg = plots.save(FIGURES[kind](), tmp_path / attempt)
        assert (png, svg) == (tmp_path / f"{attempt}.png", tmp_path / f"{attempt}.svg")
        digests.append([hashlib.sha256(path.read_bytes()).digest() for path in (png, svg)])
    assert digests[0] == digests[1]
    with Image.open(png) as picture:
        assert picture.width == 840
        assert len(picture.convert("L").getcolors()) > 20  # not blank
        assert not {"Software", "Creation Time"} & set(picture.info)
        grey = np.asarray(picture.convert("L"))
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        assert (edge == 255).all()  # nothing is cut off
    root = ET.parse(svg).getroot()
    assert root.tag.endswith("svg")
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10
    assert b"dc:date" not in svg.read_bytes()


def test_a_reader_s_settings_neither_change_nor_matter(tmp_path: Path) -> None:
    plots.save(FIGURES["masking"](), tmp_path / "plain")
    own = {"font.size": 30, "lines.linewidth": 9, "svg.hashsalt": "mine", "axes.facecolor": "black"}
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        figure = plots.masking_curve(_masking())
        plots.save(figure, tmp_path / "own")
        assert dict(matplotlib.rcParams) == before
    for suffix in ("png", "svg"):
        assert (tmp_path / f"plain.{suffix}").read_bytes() == (tmp_path / f"own.{suffix}").read_bytes()


def test_pyplot_stays_unloaded() -> None:
    code = "import sys, app.plots as p; p.similarity_matrix; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
