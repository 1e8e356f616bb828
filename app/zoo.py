"""The open zoo of a process: settings, database, object store and inbox of uploads."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from app import tables  # noqa: F401 - defines the tables of all rooms, which refer to each other
from app.access.keys import Caller
from app.db.engine import Database, parse_url
from app.db.sealing import sealer_of
from app.errors import Misconfigured
from app.jobs.notifier import CeleryNotifier
from app.process import permissions
from app.process.scratch import make_scratch
from app.settings import Settings
from app.store.directory import DirectoryStore
from app.store.inbox import DirectoryInbox, Inbox
from app.store.objects import Store
from app.store.writability import Writability

ENCODING = "UTF8"
"""The encoding that a PostgreSQL database must have, because names may hold any character."""


@dataclass(frozen=True)
class Zoo:
    """An open zoo. Close it at the end of the process."""

    settings: Settings
    database: Database
    store: Store
    inbox: Inbox
    """Receives the bytes of uploads."""
    staging: Path
    """Directory of temporary files and of unfinished uploads."""
    writability: Writability
    """Checks whether database, store and staging directory can be written."""

    def seen_by(self, caller: Caller) -> "Zoo":
        """The same zoo, restricted to a caller's workspace."""
        return replace(self, database=self.database.of(caller))

    def close(self) -> None:
        """Close database and store."""
        self.database.close()
        self.store.close()


def open_zoo(settings: Settings) -> Zoo:
    """Open database and store, and check that both answer. `app.db.engine.migrate` updates the schema.

    Raises:
        Misconfigured: a setting is wrong; the message names the setting.
    """
    permissions.begin(settings)
    make_scratch()
    permissions.mend(settings)
    staging = _directory("PNC_DATA_DIR", settings.data_dir / "uploads")
    store, inbox = _open_store(settings, staging)
    try:
        database = _open_database(settings)
    except Misconfigured:
        store.close()
        raise
    try:
        database.sealer = sealer_of(settings, make=database.is_sqlite)
    except Misconfigured:
        database.close()
        store.close()
        raise
    database.notifier = CeleryNotifier(settings.broker_url) if settings.broker_url else None
    return Zoo(settings, database, store, inbox, staging, Writability(_places(database, staging), store))


def _places(database: Database, staging: Path) -> list[tuple[str, Path]]:
    """Directories that must be writable, each with the name of its setting."""
    file = database.engine.url.database if database.is_sqlite else None
    beside = [("PNC_DATABASE_URL", Path(file).parent)] if file and file != ":memory:" else []
    return [("PNC_DATA_DIR", staging), *beside]


def _open_database(settings: Settings) -> Database:
    url = settings.database_url
    try:
        shown = parse_url(url).render_as_string(hide_password=True)
        database = Database(url, settings.database_connections)
    except (ValueError, ModuleNotFoundError) as error:
        raise Misconfigured(f"PNC_DATABASE_URL: {error}") from None
    try:
        with database.read() as session:
            session.scalar(select(1))
            encoding = ENCODING if database.is_sqlite else session.scalar(text("SHOW server_encoding"))
    except SQLAlchemyError as error:
        database.close()
        raise Misconfigured(
            f"PNC_DATABASE_URL: expected a database that answers at {shown}, got: {_reason(error)}; "
            "start it, or correct the address and the password"
        ) from None
    if encoding != ENCODING:
        database.close()
        raise Misconfigured(
            f"PNC_DATABASE_URL: expected a database with the encoding {ENCODING}, got {encoding} at {shown}; make one "
            f"with CREATE DATABASE ... ENCODING '{ENCODING}' TEMPLATE template0"
        )
    return database


def _open_store(settings: Settings, staging: Path) -> tuple[Store, Inbox]:
    if "://" not in settings.store_url:
        directory = DirectoryStore(_directory("PNC_STORE_URL", Path(settings.store_url)))
        return directory, DirectoryInbox(staging, directory)
    try:  # the import of boto3 takes a third of a second, and boto3 is optional
        from app.store.s3 import open_s3_store
        from app.store.s3_inbox import S3Inbox
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"PNC_STORE_URL: expected the package for {settings.store_url!r}, got: {error}; "
            "install it with: pip install 'pnc-zoo[cluster]'"
        ) from None
    store = open_s3_store(settings, staging)
    return store, S3Inbox(store)


def _directory(setting: str, path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Misconfigured(
            f"{setting}: expected a directory that can be written to, got {path}: {error.strerror}; choose another"
        ) from None
    return path


def _reason(error: SQLAlchemyError) -> str:
    """The message of the database driver, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
