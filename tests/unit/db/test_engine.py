from collections.abc import Iterable

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import clock, engine
from app.db.notices import Notice
from app.db.tables import Base
from app.jobs import service as jobs
from app.models import service as models
from app.models.tables import ModelRow
from app.zoo import Zoo
from tests.unit import seeds


def test_migrations_make_exactly_the_tables_of_the_code(zoo: Zoo) -> None:
    with zoo.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrating_again_changes_nothing(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        models.create(session, name="kept")
    engine.migrate(zoo.database)
    with zoo.database.read() as session:
        assert session.scalar(select(func.count(ModelRow.id))) == 1


def test_outdated_says_what_to_run(zoo: Zoo) -> None:
    assert engine.outdated(zoo.database) is None
    with zoo.database.write() as session:
        session.execute(text("DELETE FROM alembic_version"))
    assert "pnc migrate" in (engine.outdated(zoo.database) or "")


def test_a_reading_session_cannot_write(zoo: Zoo) -> None:
    with zoo.database.read() as session, pytest.raises(DBAPIError, match=r"read-?only"):
        models.create(session, name="nothing")
    with zoo.database.write() as session:
        models.create(session, name="something")


def test_a_failed_write_leaves_nothing(zoo: Zoo) -> None:
    def half(session: Session) -> None:
        models.create(session, name="half")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), zoo.database.write() as session:
        half(session)
    with zoo.database.read() as session:
        assert session.scalar(select(func.count(ModelRow.id))) == 0


def test_the_clock_goes_forward_within_one_transaction(zoo: Zoo) -> None:
    with zoo.database.read() as session:
        first = clock.now(session)
        while clock.now(session) == first:
            pass
        assert clock.now(session) > first
        assert first.tzinfo is not None


def test_foreign_keys_are_checked(zoo: Zoo) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"), zoo.database.write() as session:
        session.execute(text("INSERT INTO aliases VALUES ('none', 'a', 'none', '2026-01-01 00:00:00')"))


class _Notifier:
    def __init__(self) -> None:
        self.sent: list[Notice] = []

    def send(self, notices: Iterable[Notice]) -> None:
        self.sent += notices

    def wake(self, tables: Iterable[str]) -> None:
        pass


def test_notices_are_sent_after_the_commit_and_not_after_a_rollback(zoo: Zoo) -> None:
    zoo.database.notifier = notifier = _Notifier()
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo)
        assert notifier.sent == []
    assert [notice.id for notice in notifier.sent] == [job.id]

    def fail(session: Session) -> None:
        jobs.pause(session, job.id)
        jobs.resume(session, job.id)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), zoo.database.write() as session:
        fail(session)
    assert len(notifier.sent) == 1
