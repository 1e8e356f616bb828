"""A short form of `make chaos`: each process that holds jobs is killed once, and a deployment's report is lost."""

import json
import subprocess
import sys

import pytest

KINDS = "worker,postgres,redis,freeze,runner,unreported"
ATTEMPTS = 4
"""One more than the faults that use an attempt (worker, freeze, runner): all may hit one job before it progresses."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("jobs", ["short", pytest.param("whole", marks=pytest.mark.slow)])
def test_nothing_is_lost_doubled_or_different_when_parts_die(jobs: str) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--faults", "6", "--every", "1", "--workers", "2"]
    command += ["--kinds", KINDS, "--attempts", str(ATTEMPTS)]
    if jobs == "short":  # without a search; `test_cluster` kills the worker of a whole job
        command.append("--short")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    assert last.startswith("CHAOS "), done.stderr[-3000:]
    found = json.loads(last.removeprefix("CHAOS "))
    assert found.pop("faults") == 6
    assert found.pop("jobs") >= 2
    assert set(found.values()) == {0}, done.stderr[-3000:]
