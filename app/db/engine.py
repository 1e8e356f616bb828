"""Engine, sessions and migrations.

On SQLite every writing transaction begins with BEGIN IMMEDIATE: a transaction
that reads first and wants to write later is the one that fails with "database
is locked". Reading transactions cannot write at all, on either database, and
see one state of it from their first statement to their last.
"""

import importlib.util
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Protocol

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random

from app.db import sealing
from app.db.isolation import ZooSession, confine
from app.db.notices import Notifier, take_announced
from app.db.sealing import Sealer
from app.db.text import without_nul

BUSY_SECONDS = 30
"""How long a statement waits for somebody else's lock, on either database."""
STATEMENT_SECONDS = 60
"""PostgreSQL ends a statement that runs longer; none of ours comes near."""
IDLE_SECONDS = 900
"""PostgreSQL ends a transaction that says nothing for longer; a job's bundles are put inside one."""
SILENT_SECONDS = 30
"""A connection to PostgreSQL on which nothing comes back for longer is given up."""
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""What may stand before `://` and which driver it gets."""
_WRITE = "pnc_write"
_MIGRATION_LOCK = 0x706E63  # any fixed number; "pnc"


class Viewer(Protocol):
    """The caller that a session works for."""

    @property
    def workspace(self) -> str:
        """The workspace whose rows the session sees."""

    def check(self, session: Session) -> None:
        """Raise an error when the caller may not use the session any more."""


class Database:
    """A database and the two kinds of sessions on it.

    Args:
        url: SQLAlchemy URL, `sqlite:///...` or `postgresql+psycopg://...`.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.caller: Viewer | None = None
        """Whose workspace sessions belong to; none: they belong to no workspace and see all."""
        self.notifier: Notifier | None = None
        """Sends what a transaction has announced, once it is committed; none: nobody waits for it."""
        self.sealer: Sealer | None = None
        """Encrypts secrets; none: there are none, or this process has no key for them."""
        consistent = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._readers = self.engine.execution_options(**consistent)
        self._writers = self.engine.execution_options(**{_WRITE: True})

    @property
    def is_sqlite(self) -> bool:
        """Whether it is one file of this machine."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state and cannot write."""
        with ZooSession(self._readers, expire_on_commit=False) as session:
            self._admit(session)
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back on any error; then what it announced is sent."""
        with ZooSession(self._writers, expire_on_commit=False) as session:
            with session.begin():
                self._admit(session)
                yield session
            if self.notifier is not None:
                self.notifier.send(take_announced(session))

    def of(self, caller: Viewer) -> "Database":
        """The same database as one caller may see it: their workspace, and only while their key is in force."""
        narrowed = copy(self)
        narrowed.caller = caller
        return narrowed

    def of_all(self) -> "Database":
        """The same database, belonging to no workspace: for what is the service's own business, not a caller's."""
        whole = copy(self)
        whole.caller = None
        return whole

    def _admit(self, session: Session) -> None:
        """Asked again for every session: a key may be revoked while a page or a stream is open."""
        sealing.lend(session, self.sealer)
        if self.caller is None:
            return
        confine(session, self.caller.workspace)
        self.caller.check(session)

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def parse_url(url: str) -> URL:
    """A database's URL with the driver that is used for it.

    Raises:
        ValueError: no URL, or of a database that is not supported.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("expected a URL such as postgresql+psycopg://user:password@host/database, got none") from None
    backend = parsed.get_backend_name()
    if backend not in DRIVERS:
        raise ValueError(f"expected sqlite:///... or postgresql+psycopg://..., got {backend}://...")
    return parsed.set(drivername=DRIVERS[backend])


def _engine(url: str) -> Engine:
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _postgres(parsed)
    engine = create_engine(
        parsed, hide_parameters=True, pool_size=8, max_overflow=64, connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres(url: URL) -> Engine:
    """Every limit is there so that a frozen server or a forgotten transaction ends as an error, not as a wait."""
    limits = {
        "statement_timeout": STATEMENT_SECONDS,
        "lock_timeout": BUSY_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    arguments: dict[str, Any] = {
        "application_name": "pnc-zoo",
        "connect_timeout": 10,
        "keepalives_idle": SILENT_SECONDS // 3,
        "keepalives_interval": SILENT_SECONDS // 3,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENT_SECONDS * 1000,
        "options": " ".join(f"-c {name}={seconds}s" for name, seconds in limits.items()),
    }
    given = {**arguments, **url.query}
    return create_engine(
        url.set(query={}),
        hide_parameters=True,
        pool_size=8,
        max_overflow=32,
        pool_pre_ping=True,  # a connection that died with the server is noticed before it is used
        pool_timeout=BUSY_SECONDS,
        connect_args=given,
        json_serializer=lambda value: json.dumps(without_nul(value)),
    )


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
    with writing_schema(database) as connection:
        command.upgrade(alembic_config(connection), "head")


@contextmanager
def writing_schema(database: Database) -> Iterator[Connection]:
    """A transaction that has the schema for itself and may take its time; who comes second waits for it."""
    with (
        database.engine.execution_options(**{_WRITE: True}).connect() as connection,
        _whole_tables(database, connection),
        connection.begin(),
    ):
        if not database.is_sqlite:
            connection.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        yield connection


@contextmanager
def _whole_tables(database: Database, connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew; what refers to it must not notice, and cannot be told inside."""
    driver = connection.connection.driver_connection if database.is_sqlite else None
    if driver is not None:
        driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        if driver is not None:
            driver.execute("PRAGMA foreign_keys=ON")


def outdated(database: Database) -> str | None:
    """Why the schema cannot be used; None when it is the newest."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    with database.engine.connect() as connection:
        have = MigrationContext.configure(connection).get_current_revision()
    return None if have == head else f"expected the schema at revision {head}, got {have}; run `alembic upgrade head`"
