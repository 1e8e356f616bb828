"""`pnc migrate --from`: everything of a zoo arrives in another one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from cryptography.fernet import Fernet
from sqlalchemy import Table, select
from typer.testing import CliRunner

from app import moving
from app.access import keys
from app.cli import app
from app.db import engine
from app.db.engine import Database
from app.db.sealing import Sealer
from app.db.tables import Base
from app.deployments import service as deployments
from app.errors import Misconfigured
from app.process.exclusive import only_one
from app.settings import Settings
from app.store import uploads
from app.webhooks import service as webhooks
from app.zoo import Zoo, open_zoo
from tests.unit import seeds

RELEASED = max((Path(__file__).parent / "db" / "released").glob("*.sql"))
"""Rows in all tables, as the code of a release wrote them."""
SEALED = {"webhooks": {"secret", "old_secret"}, "idempotency_keys": {"body"}}


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Zoo]:
    """A zoo on SQLite with a module that is attached, a webhook, two keys and an unfinished upload."""
    seeds.lay_database(tmp_path / "old")
    zoo = open_zoo(Settings(data_dir=tmp_path / "old"))
    with zoo.database.write() as session:
        module = seeds.module(session, zoo)
        deployments.put(session, "digits", "low")
        deployments.attach(session, "digits", module.id)
        webhooks.create(session, url="https://example.org/hook", events=["job.succeeded"], private=True)
        secret = keys.create(session, name="parent", scopes=["read"])[1]
        keys.sign_in(session, keys.authenticate(session, secret))
        uploads.declare(session, uploads.draft(bytes=4, sha256="a" * 64, limit=9))
    yield zoo
    zoo.close()


@pytest.fixture
def new(tmp_path: Path, empty_database_url: str) -> Settings:
    """Settings of a new zoo with a key of its own and an empty, migrated database."""
    settings = Settings(
        data_dir=tmp_path / "new", database_url=empty_database_url, secret_key=Fernet.generate_key().decode()
    )
    database = Database(settings.database_url)
    engine.migrate(database)
    database.close()
    return settings


def rows_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows by table, without encrypted texts and without unfinished uploads."""
    with database.read() as session:
        return {
            table.name: sorted(
                (
                    {name: value for name, value in row._mapping.items() if name not in SEALED.get(table.name, ())}
                    for row in session.execute(select(table))
                    if table.name != "uploads" or row._mapping["key"] is not None
                ),
                key=lambda row: _order(table, row),
            )
            for table in Base.metadata.sorted_tables
        }


def _order(table: Table, row: dict[str, Any]) -> list[str]:
    return [str(row[column.name]) for column in table.primary_key.columns]


def test_all_rows_and_objects_arrive_and_the_old_zoo_stays(old: Zoo, new: Settings) -> None:
    before, objects = rows_of(old.database), set(old.store.older_than(-3600))
    moved = moving.move(moving.origin(str(old.settings.data_dir), new), new)
    zoo = open_zoo(new)
    try:
        assert rows_of(zoo.database) == before == rows_of(old.database)
        assert set(zoo.store.older_than(-3600)) == objects == set(old.store.older_than(-3600))
        assert sum(moved.rows.values()) == sum(len(rows) for rows in before.values())
        assert (moved.objects, moved.uploads, moved.lost) == (len(objects), 1, ())
        assert moved.bytes == sum(old.store.size(key) or 0 for key in objects)
    finally:
        zoo.close()


def test_the_new_key_decrypts_the_secrets(old: Zoo, new: Settings) -> None:
    moving.move(moving.origin(str(old.settings.data_dir), new), new)
    with old.database.read() as session:
        (row,) = session.scalars(select(webhooks.WebhookRow))
        secrets = webhooks.secrets_of(session, row)
    zoo = open_zoo(new)
    try:
        with zoo.database.read() as session:
            (row,) = session.scalars(select(webhooks.WebhookRow))
            assert webhooks.secrets_of(session, row) == secrets
            assert zoo.database.sealer is not None
            assert zoo.database.sealer.is_newest(row.sealed)
    finally:
        zoo.close()


def test_rows_of_every_table_arrive(tmp_path: Path, new: Settings) -> None:
    settings = Settings(data_dir=tmp_path / "released")
    settings.data_dir.mkdir()
    database = Database(settings.database_url)
    with database.engine.execution_options(pnc_write=True).begin() as connection:
        command.upgrade(engine.alembic_config(connection), RELEASED.stem)
        for line in RELEASED.read_text().splitlines():
            connection.exec_driver_sql(line)
    engine.migrate(database)
    before = rows_of(database)
    database.close()
    moved = moving.move(moving.origin(str(settings.data_dir), new), new)
    arrived = Database(new.database_url)
    try:
        assert rows_of(arrived) == before
    finally:
        arrived.close()
    assert moved.lost  # the release's objects are not in the repository


def test_a_repeated_copy_is_refused_and_loses_nothing(old: Zoo, new: Settings) -> None:
    origin = moving.origin(str(old.settings.data_dir), new)
    moving.move(origin, new)
    with pytest.raises(Misconfigured, match="expected an empty database, got one with"):
        moving.move(origin, new)


def test_an_error_half_way_leaves_the_new_database_empty(
    old: Zoo, new: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = moving.origin(str(old.settings.data_dir), new)

    def fail(title: str, done: int, total: int) -> None:
        if title == "rows of webhooks":
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        moving.move(origin, new, fail)
    moved = moving.move(origin, new)
    assert moved.objects == 0
    assert moved.there > 0


def test_a_zoo_in_use_is_refused(old: Zoo, new: Settings) -> None:
    with only_one(old.settings.data_dir), pytest.raises(Misconfigured, match="in use by another `pnc up`"):
        moving.move(moving.origin(str(old.settings.data_dir), new), new)


def test_the_data_directory_may_stay(old: Zoo, new: Settings) -> None:
    here = new.model_copy(update={"data_dir": old.settings.data_dir, "store_url": old.settings.store_url})
    origin = moving.origin(str(old.settings.data_dir), here)
    with only_one(old.settings.data_dir), pytest.raises(Misconfigured, match="in use by another `pnc up`"):
        moving.move(origin, here)
    moved = moving.move(origin, here)
    assert (moved.objects, moved.there, moved.lost) == (0, 0, ())
    assert sum(moved.rows.values()) > 10


def test_an_old_schema_is_refused(tmp_path: Path, new: Settings) -> None:
    settings = Settings(data_dir=tmp_path / "older")
    settings.data_dir.mkdir()
    database = Database(settings.database_url)
    with database.engine.execution_options(pnc_write=True).begin() as connection:
        command.upgrade(engine.alembic_config(connection), RELEASED.stem)
    database.close()
    with pytest.raises(Misconfigured, match=r"expected the schema at revision .* run `pnc migrate` for it first"):
        moving.move(moving.origin(str(settings.data_dir), new), new)


def test_a_lost_object_is_named_and_the_rest_arrives(old: Zoo, new: Settings) -> None:
    key = min(old.store.older_than(-3600))
    old.store.delete(key)
    moved = moving.move(moving.origin(str(old.settings.data_dir), new), new)
    assert moved.lost == (key,)
    assert moved.objects > 0


def test_secrets_without_a_new_key_are_refused(old: Zoo, new: Settings) -> None:
    sealer = Sealer([Fernet.generate_key().decode()], "PNC_SECRET_KEY")
    table = Base.metadata.tables["webhooks"]
    row = {"secret": sealer.seal("whsec_a"), "old_secret": None}
    with pytest.raises(Misconfigured, match="got none for the new zoo"):
        moving._Resealing(sealer, None).renewed(table, row)
    assert moving._Resealing(None, None).renewed(Base.metadata.tables["jobs"], {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("given", ["nowhere", "."])
def test_a_directory_without_a_zoo_is_refused(tmp_path: Path, new: Settings, given: str) -> None:
    with pytest.raises(Misconfigured, match="expected the data directory of an embedded service"):
        moving.origin(str(tmp_path / given), new)


def test_the_command_copies_and_says_so(old: Zoo, new: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_DATABASE_URL", new.database_url)
    monkeypatch.setenv("PNC_SECRET_KEY", str(new.secret_key))
    arguments = ["migrate", "--from", str(old.settings.data_dir), "--data-dir", str(new.data_dir)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "copied " in done.output
    assert "1 unfinished uploads were left out" in done.output
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "expected an empty database" in again.output
