"""The benchmark of large images measures a pass and a job, and appends its record."""

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from benchmarks import large_images


def test_a_record_has_the_ratio_of_its_times(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(large_images.main)
    options = ["--architecture", "cnn", "--size", "16", "--images", "70", "--out", str(tmp_path)]
    for _ in range(2):
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "large-images.json").read_text())
    assert len(rows) == 2
    for row in rows:
        assert row["ratio"] == row["job_seconds"] / row["pass_seconds"] > 0
        assert (row["images"], row["size"]) == (70, 16)
