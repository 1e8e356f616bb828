"""The benchmarks outside the main table, on digits; they compute the same figures as on CIFAR."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import costs, heterogeneous, sources
from benchmarks.comparison.data import Split, load
from benchmarks.heterogeneous import Cell

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nets")


def _digits(*_: object) -> Split:
    split = load("digits", None, 0)
    return replace(split, suite=replace(split.suite, images=2000, zoo_epochs=12, width=8))


@pytest.fixture
def two_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SOURCES", 2)
    monkeypatch.setattr(sources, "CLASSES", 2)


@pytest.mark.usefixtures("two_sources")
@pytest.mark.parametrize("method", sources.METHODS)
def test_every_method_knows_more_with_every_source(method: str, nets: Path, tmp_path: Path) -> None:
    steps = list(sources.measure(_digits(), method, (0.5, "float32"), nets))
    assert [step.sources for step in steps] == [1, 2]
    assert all(step.average > 0.6 for step in steps)
    assert all(step.new > 0.5 for step in steps)
    assert f"| {method} | 2 |" in sources.report(steps, tmp_path).read_text()
    assert (tmp_path / "sources.svg").is_file()


def test_a_cell_of_the_grid_joins_two_architectures(
    nets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(heterogeneous, "load", _digits)
    probe, cell = (
        heterogeneous.measure(nets, 0, ("cnn", source), (0.3, 12, "float32"), nets) for source in ("none", "resnet20")
    )
    assert isinstance(cell, Cell)
    assert (cell.target, cell.source, cell.method) == ("cnn", "resnet20", "pnc_fast")
    assert cell.size_ratio <= 0.6
    assert probe.method == "linear_probe"
    assert min(cell.avg, probe.avg) > 0.9
    table = heterogeneous.report([probe, cell], tmp_path).read_text().splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [["| cnn", "probe"], ["| cnn", "resnet20"]]
    assert (tmp_path / "grid.svg").is_file()


def test_a_cost_is_of_the_size_that_was_asked_for(nets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(costs, "load", _digits)
    monkeypatch.setattr("pnc_core.method.search.MAX_CANDIDATES", 32)
    rows = [
        costs.measure("images", {"positions": 4, "classes": 2, "images": images}, 0, "float32", nets, nets)
        for images in (200, 400)
    ]
    assert [row.images for row in rows] == [200, 400]
    assert all(row.seconds > 0 for row in rows)
    assert "| 400 |" in costs.report(rows, tmp_path).read_text()
