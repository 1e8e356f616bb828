"""`pnc doctor` finds what would keep the service from working, changes nothing and shows no secret."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app import doctor
from app.cli import app
from app.db import engine
from app.db.engine import Database
from app.settings import Settings
from tests.unit import seeds

Doctor = Callable[..., Result]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The command on the data directory `tmp_path / "data"`."""
    monkeypatch.setenv("PNC_URL", NOWHERE)
    for name in [name for name in os.environ if name.startswith("PNC_TEST_")]:
        monkeypatch.delenv(name)
    return lambda *more: CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path / "data"), *more])


def found(done: Result) -> dict[str, tuple[str, str]]:
    return {check["name"]: (check["state"], check["detail"]) for check in json.loads(done.stdout)["checks"]}


def test_a_fresh_machine_is_healthy_and_stays_untouched(run: Doctor, tmp_path: Path) -> None:
    done = run("--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["healthy"] is True
    checks = found(done)
    assert checks["Python"][1].startswith(sys.version.split()[0])
    assert checks["database"][0] == checks["store"][0] == checks["running service"][0] == "note"
    assert list(tmp_path.iterdir()) == []


def test_a_working_zoo_has_no_notes(run: Doctor, tmp_path: Path) -> None:
    seeds.new_zoo(tmp_path / "data").close()
    checks = found(run("--json"))
    assert [checks[name][0] for name in ("data directory", "database", "store", "broker")] == ["ok"] * 4
    assert "schema up to date" in checks["database"][1]


def test_an_old_schema_is_a_problem(run: Doctor, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    database = Database(Settings(data_dir=tmp_path / "data").database_url)
    with database.engine.execution_options(pnc_write=True).begin() as connection:
        engine.command.upgrade(engine.alembic_config(connection), "0001")
    database.close()
    done = run("--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["healthy"] is False
    assert found(done)["database"][0] == "problem"
    assert "pnc migrate" in found(done)["database"][1]


def test_a_directory_that_cannot_be_used_is_a_problem(
    run: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PNC_STORE_URL", str(tmp_path / "file"))
    done = run("--json")
    assert done.exit_code == 1
    assert found(done)["store"][0] == "problem"


def test_servers_that_do_not_answer_are_problems(run: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_DATABASE_URL", "postgresql://user:hidden-1@127.0.0.1:9/zoo")
    monkeypatch.setenv("PNC_BROKER_URL", "redis://:hidden-2@127.0.0.1:9/0")
    done = run("--json")
    assert done.exit_code == 1
    checks = found(done)
    assert checks["database"][0] == checks["broker"][0] == "problem"


def test_no_output_has_a_secret(run: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "PNC_DATABASE_URL": "postgresql://user:hidden-word@127.0.0.1:9/zoo",
        "PNC_BROKER_URL": "redis://:hidden-word@127.0.0.1:9/0",
        "PNC_SECRET_KEY": "hidden-word",
        "PNC_INTERNAL_KEY": "hidden-word" * 4,
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for option in ((), ("--json",), ("--report",)):
        assert "hidden-word" not in run(*option).output


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("PNC_SLOTS", "none", "slots"), ("PNC_DATABASE_URL", "mysql://host/zoo", "expected sqlite")],
)
def test_a_wrong_setting_is_a_problem(
    run: Doctor, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    done = run("--json")
    assert done.exit_code == 1
    assert expected in done.stdout


def test_a_variable_that_no_setting_has_is_noted(run: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_DATABSE_URL", "sqlite:///a.db")
    assert found(run("--json"))["unknown variables"] == ("note", "PNC_DATABSE_URL")


def test_the_report_is_a_table_without_the_home_directory(
    run: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    done = run("--report")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["| part | check | state | found |", "| --- | --- | --- | --- |"]
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert str(tmp_path) not in done.stdout
    assert "~/data" in done.stdout


def test_a_client_without_torch_and_server_gets_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "pydantic_settings", "psutil"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "app.settings")
    checks = {finding.name: finding for finding in doctor.examine(NOWHERE)}
    assert checks["torch"].state == checks["server"].state == "note"
    assert "pnc-zoo[server]" in checks["server"].advice
    assert "database" not in checks
