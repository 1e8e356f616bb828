"""A reader's environment: a folder with the examples, the `pnc` command, and a separate service."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Up, start_service, stop_service
from tests.unit.docs.pages import ROOT

Read = Callable[[list[str]], str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An empty zoo for one page."""
    service = start_service(tmp_path_factory.mktemp("reader") / "data")
    yield service
    assert stop_service(service) == 0


@pytest.fixture
def read(service: Up, tmp_path: Path) -> Read:
    """Runs the commands of a page in one shell that stops at the first failure; returns the output."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"pnc": "-m app.cli", "python": ""}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PNC_URL": service.url,
        "PYTHONPATH": str(ROOT),
    }

    def run(code: list[str]) -> str:
        assert code, "expected something to type, got nothing"
        done = subprocess.run(
            ["bash", "-eu", "-c", "\n".join(code)],
            cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
