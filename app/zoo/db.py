"""Engine, sessions and migrations.

On SQLite every writing transaction begins with BEGIN IMMEDIATE: a transaction
that reads first and wants to write later is the one that fails with "database
is locked". Reading transactions cannot write at all, on either database.
"""

import importlib.util
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random

from app.zoo.bell import Bell, taken_rings

BUSY_SECONDS = 30
_WRITE = "pnc_write"
_MIGRATION_LOCK = 0x706E63  # any fixed number; "pnc"


class Database:
    """A database and the two kinds of sessions on it.

    Args:
        url: SQLAlchemy URL, `sqlite:///...` or `postgresql+psycopg://...`.
        bell: Sends what a transaction has announced, once it is committed; none: nobody waits for it.
    """

    def __init__(self, url: str, bell: Bell | None = None) -> None:
        self.engine, self.bell = _engine(url), bell
        self._readers = self.engine.execution_options(postgresql_readonly=True)
        self._writers = self.engine.execution_options(**{_WRITE: True})

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state and cannot write."""
        with Session(self._readers, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back on any error; then what it announced is sent."""
        with Session(self._writers, expire_on_commit=False) as session:
            with session.begin():
                yield session
            if self.bell is not None:
                self.bell.ring(taken_rings(session))

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(
        url, hide_parameters=True, pool_size=8, max_overflow=64, connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


# Turning WAL on needs the file for itself, and SQLite does not wait for that by its own timeout.
@retry(
    retry=retry_if_exception_type(sqlite3.OperationalError),
    wait=wait_random(0.01, 0.1),
    stop=stop_after_delay(BUSY_SECONDS),
    reraise=True,
)
def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late and is deferred
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = bool(connection.get_execution_options().get(_WRITE, False))
    connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if write else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the `migrations` package, wherever it is installed.

    Args:
        connection: Where to run; without one, the settings' database.
    """
    spec = importlib.util.find_spec("migrations")
    if spec is None or spec.origin is None:
        raise RuntimeError("expected the package `migrations` beside `app`, got none; install pnc-zoo as a whole")
    config = Config()
    config.set_main_option("script_location", str(Path(spec.origin).parent))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> None:
    """Bring the schema to the newest revision; several processes may do so at once."""
    with database.engine.execution_options(**{_WRITE: True}).connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        command.upgrade(alembic_config(connection), "head")


def outdated(database: Database) -> str | None:
    """Why the schema cannot be used; None when it is the newest."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    with database.engine.connect() as connection:
        have = MigrationContext.configure(connection).get_current_revision()
    return None if have == head else f"expected the schema at revision {head}, got {have}; run `alembic upgrade head`"
