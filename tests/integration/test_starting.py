"""A process that cannot reach its database, store or broker exits with one line of explanation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import Postgres

NOWHERE = "postgresql+psycopg://pnc:secret-word@127.0.0.1:1/pnc"


@pytest.mark.parametrize("role", [["api"], ["serve"], ["worker"]], ids=lambda role: role[0])
def test_a_process_without_its_database_ends_and_says_why(role: list[str], tmp_path: Path) -> None:
    settings = {
        "PNC_DATABASE_URL": NOWHERE,
        "PNC_BROKER_URL": "redis://127.0.0.1:1/0",
        "PNC_DATA_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "app.cli", *role]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "PNC_DATABASE_URL: expected a database that answers at postgresql+psycopg://pnc:***@127.0.0.1:1/pnc" in last
    assert "secret-word" not in done.stdout + done.stderr


@pytest.mark.parametrize("role", [["migrate"], ["api"]], ids=lambda role: role[0])
def test_a_database_with_another_encoding_gives_one_line(
    role: list[str], tmp_path: Path, postgres_service: Postgres
) -> None:
    url = postgres_service.create("ascii", encoding="SQL_ASCII")
    settings = {"PNC_DATABASE_URL": url, "PNC_DATA_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "app.cli", *role]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120)
    postgres_service.drop("ascii")
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "PNC_DATABASE_URL: expected a database with the encoding UTF8, got SQL_ASCII" in lines[0]
    assert "ENCODING 'UTF8'" in lines[0]
