"""A short form of `make soak`: all kinds of visits at the same time."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.soak.__main__ import soak


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_unexpected_happens_when_all_comes_at_once(tmp_path: Path) -> None:
    found = soak(tmp_path, 0.5, 0, Console(quiet=True))
    assert found.complaints == []
    assert found.facts["target_restored"]
    assert {"jobs_succeeded", "swaps", "bad_inputs", "uploads", "predictions"} <= found.facts.keys()
