from collections.abc import Iterable

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.zoo import clock, db, jobs, models
from app.zoo.bell import Ring
from app.zoo.tables import Base, ModelRow
from app.zoo.zoo import Zoo
from tests.unit.zoo import seeds


def test_migrations_make_exactly_the_tables_of_the_code(zoo: Zoo) -> None:
    with zoo.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrating_again_changes_nothing(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        models.create(session, name="kept")
    db.migrate(zoo.database)
    with zoo.database.read() as session:
        assert session.scalar(select(func.count(ModelRow.id))) == 1


def test_outdated_says_what_to_run(zoo: Zoo) -> None:
    assert db.outdated(zoo.database) is None
    with zoo.database.write() as session:
        session.execute(text("DELETE FROM alembic_version"))
    assert "alembic upgrade head" in (db.outdated(zoo.database) or "")


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


class _Bell:
    def __init__(self) -> None:
        self.rung: list[Ring] = []

    def ring(self, rings: Iterable[Ring]) -> None:
        self.rung += rings


def test_the_bell_rings_after_the_commit_and_not_after_a_rollback(zoo: Zoo) -> None:
    zoo.database.bell = heard = _Bell()
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo)
        assert heard.rung == []
    assert [ring.id for ring in heard.rung] == [job.id]

    def fail(session: Session) -> None:
        jobs.pause(session, job.id)
        jobs.resume(session, job.id)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), zoo.database.write() as session:
        fail(session)
    assert len(heard.rung) == 1
