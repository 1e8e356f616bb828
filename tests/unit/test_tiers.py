"""`make test` leaves out long tests, and only those."""

import re
from pathlib import Path

import pytest

from tests.conftest import LONG, Durations

ROOT = Path(__file__).parents[2]


def test_the_list_of_long_tests_names_tests_that_exist() -> None:
    gone = []
    for line in LONG.read_text().splitlines():
        file, _, name = line.partition("::")
        if f"def {name.partition('[')[0].rpartition('::')[2]}(" not in _text(ROOT / file):
            gone.append(line)
    assert gone == []


def _text(path: Path) -> str:
    """A test module's text, with those whose tests it repeats."""
    text = path.read_text() if path.is_file() else ""
    repeated = re.findall(r"^from (tests\S+) import", text, re.MULTILINE)
    return text + "".join(_text(ROOT / f"{module.replace('.', '/')}.py") for module in repeated)


def _took(name: str, when: str, seconds: float) -> pytest.TestReport:
    return pytest.TestReport(name, ("file.py", 0, name), {}, "passed", None, when, duration=seconds)  # type: ignore[arg-type]


def test_a_record_names_long_tests_and_keeps_the_entries_of_tests_that_did_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.LONG", tmp_path / "long.txt")
    (tmp_path / "long.txt").write_text("another\nfaster\n")
    record = Durations(1.0)
    for name, when, seconds in (("faster", "call", 0.5), ("faster", "setup", 9.0), ("slower", "call", 1.5)):
        record.pytest_runtest_logreport(_took(name, when, seconds))
    record.pytest_sessionfinish()
    assert (tmp_path / "long.txt").read_text() == "another\nslower\n"
