"""After its commit, a transaction wakes a worker for each table in which rows began to wait."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from app.db.notices import Notice
from app.jobs import runs
from app.jobs import service as jobs
from app.models import validation
from app.zoo import Zoo
from tests.unit import seeds


class Noted:
    """Notes the tables of each commit."""

    def __init__(self) -> None:
        self.tables: list[set[str]] = []

    def send(self, notices: Iterable[Notice]) -> None:
        pass

    def wake(self, tables: Iterable[str]) -> None:
        self.tables.append(set(tables))


@pytest.fixture
def noted(zoo: Zoo) -> Noted:
    zoo.database.notifier = found = Noted()
    return found


def test_new_rows_wake_a_worker_and_leased_or_ready_rows_do_not(zoo: Zoo, noted: Noted) -> None:
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", status="validating")
    assert noted.tables == [{"model_versions"}]
    with zoo.database.write() as session:
        lease = validation.claim_validation(session, "worker")
    assert lease is not None
    with zoo.database.write() as session:
        validation.heartbeat_validation(session, lease)
    assert len(noted.tables) == 1
    with zoo.database.write() as session:
        validation.release_validation(session, lease)
    assert noted.tables[1:] == [{"model_versions"}], "a released row waits again"


def test_jobs_have_notices_instead(zoo: Zoo, noted: Noted) -> None:
    with zoo.database.write() as session:
        wanted = seeds.request(session, zoo)
    noted.tables.clear()
    with zoo.database.write() as session:
        jobs.submit(session, wanted)
        runs.claim(session, "worker")
    assert noted.tables == []


def test_a_transaction_that_fails_wakes_nobody(zoo: Zoo, noted: Noted, tmp_path: Path) -> None:
    def failing() -> None:
        with zoo.database.write() as session:
            seeds.version(session, zoo, "low", status="validating")
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert noted.tables == []
