"""Marks each test with the name of its folder, and long tests as slow.

`long.txt` names the tests that took longer than `make durations` allows. `make thorough` runs them; `make test` runs
only those marked `always`, which check a promise.
"""

import os
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
LONG = ROOT / "long.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-long", type=float, metavar="SECONDS", help="write the names of tests that take longer to long.txt"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    long = set(LONG.read_text().splitlines())
    for item in items:
        tier = item.path.relative_to(ROOT).parts[0]
        item.add_marker(getattr(pytest.mark, tier))
        if item.nodeid in long and item.get_closest_marker("always") is None:
            item.add_marker(pytest.mark.slow)


class Durations:
    """Records the tests that take longer than a limit; entries of tests that do not run stay."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Setup is left out: the first test that needs a shared fixture would be taken for a long one.
        if report.when == "call":
            self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        kept = {name for name in LONG.read_text().splitlines() if name not in self._seconds}
        found = {name for name, seconds in self._seconds.items() if seconds > self._limit}
        LONG.write_text("".join(f"{name}\n" for name in sorted(kept | found)))


def pytest_configure(config: pytest.Config) -> None:
    limit = config.getoption("--record-long", default=None)
    if limit is not None and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Durations(limit))
