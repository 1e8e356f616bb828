"""Many open event streams do not slow down other requests."""

from pathlib import Path

import pytest

from tests.listeners import PATHS, compared

STREAMS = 500
TIMES = 5
"""Largest ratio of latencies with and without streams."""
FLOOR_SECONDS = 0.02
"""Lower bound of the latency without streams, because on a busy machine a few milliseconds are chance."""


@pytest.mark.always
def test_five_hundred_open_streams_delay_nobody(tmp_path: Path) -> None:
    found = compared(tmp_path, STREAMS, rounds=40)
    for path in PATHS:
        assert found.crowded[path].median < TIMES * max(found.idle[path].median, FLOOR_SECONDS), (path, found)
    assert found.bytes_after - found.bytes_before < STREAMS * 2**18, "expected at most 256 KiB for a stream"
