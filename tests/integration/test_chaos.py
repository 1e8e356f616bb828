"""Short forms of `make chaos`: processes that hold jobs are killed once each, and a deployment's report is lost."""

import json
import subprocess
import sys

import pytest

ATTEMPTS = 4
"""One more than the faults that use an attempt (worker, freeze, runner): all may hit one job before it progresses."""
SHORT, WHOLE = ("worker", "postgres", "unreported"), ("worker", "postgres", "redis", "freeze", "runner", "unreported")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kinds", [SHORT, WHOLE], ids=["short", "whole"])
def test_nothing_is_lost_doubled_or_different_when_parts_die(kinds: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--faults", str(len(kinds)), "--every", "1", "--workers", "2"]
    command += ["--kinds", ",".join(kinds), "--attempts", str(ATTEMPTS)]
    if kinds == SHORT:  # without a search; `test_cluster` kills the worker of a whole job
        command.append("--short")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    assert last.startswith("CHAOS "), done.stderr[-3000:]
    found = json.loads(last.removeprefix("CHAOS "))
    assert found.pop("faults") == len(kinds)
    assert found.pop("jobs") >= 2
    assert set(found.values()) == {0}, done.stderr[-3000:]
