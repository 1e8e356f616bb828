"""Databases of released revisions, with rows in all tables, come up to date with everything in them.

`released/N.sql` holds rows as the code of revision N wrote them, in SQL that both databases read.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import MetaData, func, select
from sqlalchemy.orm import Session

from app.access.secrets_at_rest import seal_all
from app.datasets.tables import DatasetRow
from app.db import engine
from app.db.engine import Database
from app.db.pages import Window
from app.db.tables import Base, IdempotencyRow
from app.deployments import desired
from app.jobs import service as jobs
from app.jobs.tables import EventRow, TrialRow
from app.models import service as models
from app.models.tables import VersionRow
from app.settings import Settings
from app.store.tables import UploadRow
from app.webhooks import service as webhooks
from app.webhooks.tables import WebhookRow
from app.zoo import open_zoo
from tests.unit import seeds

RELEASED = sorted((Path(__file__).parent / "released").glob("*.sql"))


@pytest.fixture(params=RELEASED, ids=lambda path: path.stem)
def upgraded(request: pytest.FixtureRequest, empty_database_url: str) -> Iterator[tuple[Database, dict[str, int]]]:
    """A database that was filled at an old revision and then brought up to date, and how many rows each table had."""
    database = Database(empty_database_url)
    with database.engine.execution_options(pnc_write=True).begin() as connection:
        command.upgrade(engine.alembic_config(connection), request.param.stem)
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        for line in request.param.read_text().splitlines():
            connection.exec_driver_sql(line)
        old = MetaData()
        old.reflect(connection)
        counts = {t.name: connection.scalar(select(func.count()).select_from(t)) or 0 for t in old.sorted_tables}
    engine.migrate(database)
    yield database, counts
    database.close()


def test_every_table_of_a_released_revision_has_rows(upgraded: tuple[Database, dict[str, int]]) -> None:
    _, counts = upgraded
    assert counts
    assert all(counts.values())


def test_no_row_is_lost_and_every_row_can_be_read(upgraded: tuple[Database, dict[str, int]]) -> None:
    database, counts = upgraded
    assert engine.outdated(database) is None
    with database.read() as session:
        for mapper in Base.registry.mappers:
            rows = session.scalars(select(mapper.class_)).all()
            assert len(rows) >= counts.get(str(mapper.local_table), 0)
            assert all(getattr(row, column.key) is not ... for row in rows for column in mapper.column_attrs)


def test_secrets_that_were_readable_are_sealed_and_sign_as_before(
    upgraded: tuple[Database, dict[str, int]], tmp_path: Path
) -> None:
    database = upgraded[0]
    url = database.engine.url.render_as_string(hide_password=False)
    zoo = open_zoo(Settings(data_dir=tmp_path / "data", database_url=url, secret_key=seeds.SECRET_KEY))
    seal_all(zoo)
    with zoo.database.read() as session:
        for row in session.scalars(select(WebhookRow)):
            assert row.sealed.startswith("sealed:")
            assert webhooks.secrets_of(session, row) == (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "whsec_c29tZSBvdGhlciBzZWNyZXQgb2xkZXI=",
            )
        assert not [body for body in session.scalars(select(IdempotencyRow.body)) if "whsec_" in body]
    zoo.close()


def test_uploads_that_something_was_made_of_count_as_used(upgraded: tuple[Database, dict[str, int]]) -> None:
    with upgraded[0].read() as session:
        keys = set(session.scalars(select(VersionRow.key).union(select(DatasetRow.key))))
        for row in session.scalars(select(UploadRow)):
            assert (row.used_at is not None) == (row.key in keys)


def test_what_was_registered_is_still_served_and_told(upgraded: tuple[Database, dict[str, int]]) -> None:
    with upgraded[0].read() as session:
        assert models.resolve(session, "low@production").ref == "low@1"
        assert models.get_version(session, "bad", 1).problem == {
            "code": "weights_mismatch",
            "detail": "no such layer",
        }
        (wanted,) = desired.deployments(session)
        assert (wanted.name, wanted.generation, wanted.version, len(wanted.modules)) == ("digits", 2, "low@1", 1)
        _check_jobs(session)


def _check_jobs(session: Session) -> None:
    new, old = jobs.list_jobs(session, Window()).data
    assert (old.state, new.state) == ("succeeded", "queued")
    assert jobs.config_of(old).classes == ("7", "8")
    assert old.created_at.tzinfo is not None
    assert session.scalars(select(EventRow.seq).where(EventRow.job_id == old.id)).all() == [1, 2, 3]
    assert session.scalars(select(TrialRow.score)).all() == [0.75]
    assert old.module is not None
    assert {b.payload for b in old.module.bundles} == {"thin", "full"}
