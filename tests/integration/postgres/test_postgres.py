"""Differences between PostgreSQL and SQLite, and a check that no unit test of the zoo is missing here."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.db import engine
from app.db.engine import Database
from app.errors import Misconfigured
from app.models import service as models
from app.models.tables import ModelRow
from app.settings import Settings
from app.zoo import Zoo, open_zoo
from tests.services import Postgres

UNIT = Path(__file__).parents[2] / "unit" / "zoo"


def test_every_module_with_a_database_runs_here_too() -> None:
    wanted = {
        p.name for p in UNIT.glob("test_*.py") if re.search(r"\b(zoo|session|empty_database_url):", p.read_text())
    }
    assert wanted - {p.name for p in Path(__file__).parent.glob("test_*.py")} == set()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_alembic_by_hand_upgrades_and_finds_nothing_to_change(
    kind: str, tmp_path: Path, empty_postgres_url: str
) -> None:
    url = empty_postgres_url if kind == "postgresql" else f"sqlite:///{tmp_path}/zoo.db"
    environment = {**os.environ, "PNC_DATABASE_URL": url, "PNC_DATA_DIR": str(tmp_path)}
    for words in (["upgrade", "head"], ["check"], ["downgrade", "base"], ["upgrade", "head"]):
        command = [sys.executable, "-m", "alembic", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    database = Database(url)
    assert engine.outdated(database) is None
    database.close()


def test_nul_in_what_a_worker_writes_is_replaced(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        models.create(session, name="a", description="b\0c")
        session.flush()
        session.execute(text("UPDATE models SET description = description || '!'"))
    with zoo.database.read() as session:
        assert session.scalar(select(ModelRow.description)) == "b\ufffdc!"
        assert session.scalar(select(ModelRow.id).where(ModelRow.name == "\0")) is None


def test_a_reading_session_sees_one_state(zoo: Zoo) -> None:
    with zoo.database.read() as reader:
        assert reader.scalar(select(ModelRow.id)) is None
        with zoo.database.write() as session:
            models.create(session, name="a")
        assert reader.scalar(select(ModelRow.id)) is None
    with zoo.database.read() as reader:
        assert reader.scalar(select(ModelRow.id)) is not None


def test_limits_hold_on_every_connection(zoo: Zoo) -> None:
    with zoo.database.read() as session:
        shown = {name: session.scalar(text(f"SHOW {name}")) for name in ("statement_timeout", "lock_timeout")}
    assert shown == {"statement_timeout": "1min", "lock_timeout": "30s"}


def test_a_statement_that_takes_too_long_is_ended(postgres_url: str) -> None:
    database = Database(f"{postgres_url}?options=-c%20statement_timeout%3D100ms")
    with pytest.raises(OperationalError, match="statement timeout"), database.read() as session:
        session.execute(text("SELECT pg_sleep(10)"))
    database.close()


def test_the_plain_name_of_the_database_gets_our_driver(postgres_url: str) -> None:
    for name in ("postgres", "postgresql"):
        database = Database(postgres_url.replace("postgresql+psycopg", name))
        assert database.engine.driver == "psycopg"
        with database.read() as session:
            assert session.scalar(select(1)) == 1
        database.close()


def test_a_wrong_password_and_a_missing_database_are_said_in_one_line(postgres_url: str, tmp_path: Path) -> None:
    for url, said in (
        (postgres_url.replace("not-secret", "wrong"), "password authentication failed"),
        (f"{postgres_url}_none", "does not exist"),
    ):
        with pytest.raises(Misconfigured, match=rf"PNC_DATABASE_URL: expected .* {said}") as caught:
            open_zoo(Settings(data_dir=tmp_path, database_url=url))
        assert "\n" not in str(caught.value)
        assert "wrong" not in str(caught.value)


def test_connections_that_died_with_the_server_are_replaced(zoo: Zoo, postgres_service: Postgres) -> None:
    with zoo.database.write() as session:
        models.create(session, name="before")
    postgres_service.kill()
    with pytest.raises(DBAPIError), zoo.database.read() as session:
        session.scalar(select(1))
    postgres_service.restart()
    with zoo.database.read() as session:
        assert session.scalar(select(ModelRow.name)) == "before"


def test_a_row_that_somebody_holds_is_waited_for(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        models.create(session, name="a")
    order: list[str] = []

    def change() -> None:
        with zoo.database.write() as session:
            models.change(session, "a", description="second")
            session.flush()
            order.append("second")

    with zoo.database.write() as session:
        models.change(session, "a", description="first")
        session.flush()
        waiting = threading.Thread(target=change)
        waiting.start()
        time.sleep(0.3)
        order.append("first")
    waiting.join(30)
    assert order == ["first", "second"]
