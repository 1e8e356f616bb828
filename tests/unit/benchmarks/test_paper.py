import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import paper
from benchmarks.comparison.cloning import VARIANTS
from benchmarks.comparison.task import Record
from benchmarks.reports.rows import read_rows
from benchmarks.reports.tables import table
from pnc_core.config import CloneConfig

RECORD = Record(
    suite="digits", seed=0, split=0, method="lwf", fraction=0.3, old=0.8, new=0.6, avg=0.7, locality=0.9,
    size_ratio=0.5, macs_ratio=1.5, seconds=10.0, images_used=100,
)  # fmt: skip
NAMES = {
    *("target_only", "ensemble_raw", "ensemble_softmax", "ensemble_affine", "ensemble_router", "ensemble_joint"),
    *("linear_probe", "finetune_new", "finetune", "lwf_new", "lwf", "ewc", "memo", "zipit_partial"),
    *("joint_30", "joint_100"),
    *("pnc_fast", "pnc_joint", "pnc_strict", "pnc_no_old", "pnc_random_mask", "pnc_fixed_position"),
}


def _run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(paper.main)
    found = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return found.output


def test_every_method_of_the_comparison_is_there() -> None:
    assert set(paper.METHODS) >= NAMES


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_valid_configurations(name: str) -> None:
    CloneConfig(classes=("a",), **VARIANTS[name])


def test_a_table_has_mean_and_spread_over_the_splits() -> None:
    rows = [RECORD, replace(RECORD, split=1, avg=0.8), replace(RECORD, split=1, method="ewc")]
    lines = table(rows).splitlines()
    assert len(lines) == 4
    assert "| `lwf` | 75.0 ± 7.1 | 80.0 ± 0.0 |" in lines[2]
    assert lines[2].endswith("| 0.50 | 1.50 | 10 | 100 | 2 |")
    assert "| `ewc` | 70.0 | 80.0 |" in lines[3]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


METHODS = "target_only,ensemble_softmax,lwf,pnc_fast"


@pytest.mark.parametrize(
    "methods", [METHODS, pytest.param(f"{METHODS},linear_probe,pnc_joint", marks=pytest.mark.slow)]
)
def test_cloning_beside_its_baselines_on_the_digits(tmp_path: Path, methods: str) -> None:
    started = time.process_time()
    common = ["--suite", "digits", "--seeds", "0", "--precision", "float32", "--out", str(tmp_path)]
    first = _run(*common, "--methods", "target_only,ensemble_softmax")
    assert "target_only" in first
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["method"] for r in results] == ["target_only", "ensemble_softmax"]
    assert {(r["split"], r["fraction"]) for r in results} == {(0, 0.3)}
    assert results[0].keys() == set(Record.__dataclass_fields__)
    assert results[0]["old"] > 0.95
    assert results[0]["new"] == 0
    again = _run(*common, "--methods", methods, "--resume")
    assert "target_only" not in again
    found = {row["method"]: Record(**row) for row in read_rows(tmp_path / "results.json")}
    assert list(found) == methods.split(",")
    for name in found.keys() & {"pnc_fast", "pnc_joint"}:
        assert found[name].avg > found["ensemble_softmax"].avg
        assert found[name].avg > 0.93
        assert found[name].size_ratio <= 0.6
    assert found["pnc_fast"].seconds < found["lwf"].seconds
    assert time.process_time() - started < 180
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert len({*splits["digits-0"]["target"], *splits["digits-0"]["cloned"]}) == 10
    assert "`pnc_fast`" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "digits-0.3.svg").stat().st_size > 1000
    assert (tmp_path / "digits-0.3.png").stat().st_size > 1000


def test_results_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    output = _run("--suite", "digits", "--out", str(tmp_path), "--methods", "target_only")
    assert "--resume" in output
    assert (tmp_path / "results.json").read_text() == "[]"


def test_an_unknown_method_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    output = _run("--suite", "digits", "--out", str(tmp_path), "--methods", "magic")
    assert "magic" in output
    assert not list(tmp_path.iterdir())
