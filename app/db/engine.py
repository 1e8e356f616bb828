"""Engine, sessions and migrations.

On SQLite every writing transaction begins with BEGIN IMMEDIATE. A transaction
that reads first and writes later could fail with "database is locked". Reading
transactions cannot write, on either database, and see one consistent state.
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
from app.db.notices import Notifier, take_announced, take_waiting
from app.db.sealing import Sealer
from app.db.text import without_nul

MOST_CONNECTIONS = 64
"""Most connections that a process opens at once."""
BUSY_SECONDS = 30
"""Longest time that a statement waits for a lock, on either database."""
STATEMENT_SECONDS = 60
"""PostgreSQL ends a statement that runs longer. Statements of the service take far less."""
IDLE_SECONDS = 900
"""PostgreSQL ends a transaction that is idle for longer. A job puts its bundles into the store inside a transaction."""
SILENT_SECONDS = 30
"""A connection to PostgreSQL without any answer for longer is closed."""
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""Driver for each allowed scheme of a URL."""
_WRITE = "pnc_write"
_MIGRATION_LOCK = 0x706E63  # an arbitrary fixed number: "pnc" in ASCII


class Viewer(Protocol):
    """The caller of a session."""

    @property
    def workspace(self) -> str:
        """The workspace whose rows the session sees."""

    def check(self, session: Session) -> None:
        """Raise an error if the caller's key is no longer valid."""


class Database:
    """A database with its reading and writing sessions.

    Args:
        url: SQLAlchemy URL, `sqlite:///...` or `postgresql+psycopg://...`.
        connections: Connections to PostgreSQL that stay open; further ones are closed after their use.
    """

    def __init__(self, url: str, connections: int = 8) -> None:
        self.engine = _engine(url, connections)
        self.caller: Viewer | None = None
        """The caller whose workspace the sessions see; None: the sessions see all workspaces."""
        self.notifier: Notifier | None = None
        """Sends the notices of a transaction after its commit; None: notices are dropped."""
        self.sealer: Sealer | None = None
        """Encrypts secrets; None: this process has no key."""
        consistent = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._readers = self.engine.execution_options(**consistent)
        self._writers = self.engine.execution_options(**{_WRITE: True})

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state and cannot write."""
        with ZooSession(self._readers, expire_on_commit=False) as session:
            self._admit(session)
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end and then sends its notices. It rolls back on any error."""
        with ZooSession(self._writers, expire_on_commit=False) as session:
            with session.begin():
                self._admit(session)
                yield session
            if self.notifier is not None:
                self.notifier.send(take_announced(session))
                if waiting := take_waiting(session):
                    self.notifier.wake(waiting)

    def of(self, caller: Viewer) -> "Database":
        """The same database, restricted to a caller's workspace while the caller's key is valid."""
        narrowed = copy(self)
        narrowed.caller = caller
        return narrowed

    def of_all(self) -> "Database":
        """The same database with all workspaces, for work of the service that no caller asked for."""
        whole = copy(self)
        whole.caller = None
        return whole

    def _admit(self, session: Session) -> None:
        """Restrict a session to its caller. Every session checks the key, which may be revoked while a page is open."""
        sealing.lend(session, self.sealer)
        if self.caller is None:
            return
        confine(session, self.caller.workspace)
        self.caller.check(session)

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def parse_url(url: str) -> URL:
    """Parse the URL of a database and set its driver.

    Raises:
        ValueError: the text is no URL, or the database is not supported.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("expected a URL such as postgresql+psycopg://user:password@host/database, got none") from None
    backend = parsed.get_backend_name()
    if backend not in DRIVERS:
        raise ValueError(f"expected sqlite:///... or postgresql+psycopg://..., got {backend}://...")
    return parsed.set(drivername=DRIVERS[backend])


def _engine(url: str, connections: int) -> Engine:
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _postgres(parsed, connections)
    engine = create_engine(
        parsed, hide_parameters=True, pool_size=8, max_overflow=64, connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres(url: URL, connections: int) -> Engine:
    """Engine with time limits: a frozen server or a forgotten transaction raises an error and does not block."""
    limits = {
        "statement_timeout": STATEMENT_SECONDS,
        "lock_timeout": BUSY_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    arguments: dict[str, Any] = {
        "application_name": "pnc-zoo",
        "client_encoding": "utf8",  # otherwise text of an SQL_ASCII database arrives as bytes
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
        pool_size=connections,
        max_overflow=MOST_CONNECTIONS - connections,
        pool_pre_ping=True,  # replaces a connection that the server has closed
        pool_timeout=BUSY_SECONDS,
        connect_args=given,
        json_serializer=lambda value: json.dumps(without_nul(value)),
    )


# Turning WAL on needs an exclusive lock, for which SQLite does not wait by its own timeout.
@retry(
    retry=retry_if_exception_type(sqlite3.OperationalError),
    wait=wait_random(0.01, 0.1),
    stop=stop_after_delay(BUSY_SECONDS),
    reraise=True,
)
def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is late and deferred
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
        connection: Connection of the migration; None: the database of the settings.
    """
    spec = importlib.util.find_spec("migrations")
    if spec is None or spec.origin is None:
        raise RuntimeError("expected the package `migrations` beside `app`, got none; install pnc-zoo as a whole")
    config = Config()
    config.set_main_option("script_location", str(Path(spec.origin).parent))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> None:
    """Migrate the schema to the newest revision. Several processes may call this at once."""
    with writing_schema(database) as connection:
        command.upgrade(alembic_config(connection), "head")


@contextmanager
def writing_schema(database: Database) -> Iterator[Connection]:
    """A transaction with exclusive use of the schema and without time limits. Other processes wait for its end."""
    with (
        database.engine.execution_options(**{_WRITE: True}).connect() as connection,
        _without_foreign_keys(database, connection),
        connection.begin(),
    ):
        if not database.is_sqlite:
            connection.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        yield connection


@contextmanager
def _without_foreign_keys(database: Database, connection: Connection) -> Iterator[None]:
    """Turn off SQLite's foreign keys, because a migration replaces tables. Not possible inside a transaction."""
    driver = connection.connection.driver_connection if database.is_sqlite else None
    if driver is not None:
        driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        if driver is not None:
            driver.execute("PRAGMA foreign_keys=ON")


def outdated(database: Database) -> str | None:
    """Message about a schema that is older than this code; None: it has the same revision or a newer one.

    Code of one release runs on the schema of the next, so that processes can be replaced one by one.
    """
    scripts = ScriptDirectory.from_config(alembic_config())
    head = scripts.get_current_head()
    with database.engine.connect() as connection:
        have = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if have == head or (have is not None and have not in known):
        return None
    return f"expected the schema at revision {head}, got {have}; run `pnc migrate`"
