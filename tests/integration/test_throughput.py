"""The benchmark of workers runs completely, with few jobs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_of_job_is_measured_for_every_number_of_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=550)
    rows = json.loads((tmp_path / "results.json").read_text())
    found = {(row["kind"], row["workers"]) for row in rows}
    assert found == {(kind, workers) for kind in ("many", "one", "pretended") for workers in (1, 2, 4)}
    for row in rows:
        assert row["jobs_a_minute"] > 0
        assert row["job_seconds"] >= (1.0 if row["kind"] == "pretended" else 0.5)
        assert row["cpu_seconds_a_job"] > 0
    pretended = {row["workers"]: row["jobs_a_minute"] for row in rows if row["kind"] == "pretended"}
    assert pretended[1] <= 60  # a worker runs one job after another
    assert "pretended" in (tmp_path / "workers.md").read_text()
