"""`pnc migrate --from`: copy a whole zoo into another, empty one, for instance from SQLite to PostgreSQL and S3.

Objects are copied first, and then all rows in one transaction: an interrupted copy leaves an empty database and can be
repeated. The zoo that is copied does not change.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from app.access.tables import WorkspaceRow
from app.db.engine import outdated, writing_schema
from app.db.sealing import Sealer, is_sealed
from app.db.tables import IdempotencyRow
from app.errors import Misconfigured, NotFound
from app.process.exclusive import only_one
from app.settings import Settings
from app.store.directory import DirectoryStore
from app.store.objects import Store
from app.store.tables import UploadRow
from app.tables import OWNERS, Base
from app.webhooks.tables import WebhookRow
from app.zoo import Zoo, open_zoo

Report = Callable[[str, int, int], None]
"""Called with a title, the number of things done and their total."""
_AT_ONCE = 500
_SEALED = {
    WebhookRow.__tablename__: ("secret", "old_secret"),
    IdempotencyRow.__tablename__: ("body",),
}
"""Columns, by table, whose texts may be encrypted."""


@dataclass(frozen=True)
class Moved:
    """Rows and objects that a move has copied."""

    rows: dict[str, int]
    """Number of rows, by table."""
    objects: int
    bytes: int
    there: int
    """Number of objects that the new store had already."""
    lost: tuple[str, ...]
    """Keys of objects that the old store has lost."""
    uploads: int
    """Number of unfinished uploads, which are not copied: their clients must send them again."""


def origin(given: str, settings: Settings) -> Settings:
    """The settings of the zoo to copy.

    Args:
        given: Data directory of an embedded service, or the URL of a database. A database that is given alone has the
            object store and the secret keys of `settings`.
        settings: Settings of the new zoo.

    Raises:
        Misconfigured: the directory has no database.
    """
    if "://" in given:
        return settings.model_copy(update={"database_url": given})
    data_dir = Path(given).resolve()
    if not (data_dir / "zoo.db").is_file():
        raise Misconfigured(
            f"--from: expected the data directory of an embedded service, got {data_dir} without zoo.db; "
            "name another directory, or the URL of a database"
        )
    own = {"database_url": _embedded(data_dir), "store_url": f"{data_dir}/objects"}
    return settings.model_copy(update={"data_dir": data_dir, "secret_key": None, "secret_key_file": None, **own})


def _embedded(data_dir: Path) -> str:
    """URL of the database of an embedded service."""
    return f"sqlite:///{data_dir}/zoo.db"


def move(old: Settings, new: Settings, report: Report = lambda title, done, count: None) -> Moved:
    """Copy everything from one zoo into another.

    Args:
        old: Settings of the zoo to copy. No process may use it meanwhile; for a data directory a lock makes sure.
        new: Settings of the zoo to fill. Its database is empty and has the newest schema.
        report: Receives the progress.

    Raises:
        Misconfigured: the old zoo is in use, its schema is not the newest, both zoos have the same database, the new
            one is not empty, or a database refuses a statement.
    """
    if old.database_url == new.database_url:
        raise Misconfigured(
            "--from: expected another database than PNC_DATABASE_URL, got the same; set PNC_DATABASE_URL"
        )
    with ExitStack() as stack:
        if old.database_url == _embedded(old.data_dir):
            stack.enter_context(only_one(old.data_dir))
        source = stack.enter_context(closing(open_zoo(old)))
        target = stack.enter_context(closing(open_zoo(new)))
        problem = outdated(source.database)
        if problem is not None:
            raise Misconfigured(f"--from: {problem} for it first")
        _check_empty(target)
        objects = _copy_objects(source, target, report)
        try:
            return _copy_rows(source, target, objects, report)
        except SQLAlchemyError as error:
            detail = f"--from: expected rows that the new database takes, got: {' '.join(str(error).split())}"
            raise Misconfigured(f"{detail}; nothing was written to it") from error


def _check_empty(target: Zoo) -> None:
    with target.database.read() as session:
        for table in Base.metadata.sorted_tables:
            count = session.scalar(select(func.count()).select_from(table)) or 0
            if count and table is not WorkspaceRow.__table__:
                raise Misconfigured(
                    f"PNC_DATABASE_URL: expected an empty database, got one with {count} rows in {table.name}; "
                    "create a new database"
                )


def _copy_objects(source: Zoo, target: Zoo, report: Report) -> Moved:
    if _is_same(source.store, target.store, source.settings, target.settings):
        return Moved({}, 0, 0, 0, (), 0)
    with source.database.read() as session:
        found = {key: digest for table in OWNERS for key, digest in session.execute(select(table.key, table.digest))}
    wanted = sorted((key, digest) for key, digest in found.items() if key)  # purged rows have an empty key
    copied = size = there = 0
    lost: list[str] = []
    for done, (key, digest) in enumerate(wanted):
        report("objects", done, len(wanted))
        if target.store.size(key) is not None:
            there += 1
            continue
        try:
            with source.store.local(key) as path:
                size += target.store.put(path, expected=digest).bytes
        except NotFound:
            lost.append(key)
            continue
        copied += 1
    report("objects", len(wanted), len(wanted))
    return Moved({}, copied, size, there, tuple(lost), 0)


def _is_same(source: Store, target: Store, old: Settings, new: Settings) -> bool:
    if isinstance(source, DirectoryStore) and isinstance(target, DirectoryStore):
        return Path(old.store_url).resolve() == Path(new.store_url).resolve()
    return (old.store_url, old.store_endpoint) == (new.store_url, new.store_endpoint)


def _copy_rows(source: Zoo, target: Zoo, objects: Moved, report: Report) -> Moved:
    seals = _Resealing(source.database.sealer, target.database.sealer)
    counts: dict[str, int] = {}
    with source.database.read() as session, writing_schema(target.database) as connection:
        reading = session.connection()
        uploads = reading.scalar(select(func.count()).where(UploadRow.key.is_(None))) or 0
        tables = Base.metadata.sorted_tables
        totals = {table.name: reading.scalar(select(func.count()).select_from(table)) or 0 for table in tables}
        connection.execute(delete(WorkspaceRow))  # the migration has made the default one
        for table in tables:
            counts[table.name] = 0
            for rows in _batches(reading, table):
                report(f"rows of {table.name}", counts[table.name], totals[table.name])
                connection.execute(insert(table), [seals.renewed(table, row._asdict()) for row in rows])
                counts[table.name] += len(rows)
            _check_count(connection, table, counts[table.name])
        report("rows", sum(counts.values()), sum(counts.values()))
    return replace(objects, rows=counts, uploads=uploads)


def _batches(reading: Connection, table: Table) -> Iterator[Sequence[Row[Any]]]:
    """Rows of a table, each after the row of the same table that it refers to."""
    query = select(table)
    if table is UploadRow.__table__:
        query = query.where(table.c.key.is_not(None))
    own = next((key.parent for key in table.foreign_keys if key.column.table is table), None)
    if own is not None:
        yield from _by_generation(reading.execute(query).all(), own.name, table)
        return
    rows = iter(reading.execution_options(yield_per=_AT_ONCE).execute(query))
    while batch := list(islice(rows, _AT_ONCE)):
        yield batch


def _by_generation(rows: Sequence[Row[Any]], parent: str, table: Table) -> Iterator[Sequence[Row[Any]]]:
    (key,) = table.primary_key.columns
    known: set[object] = {None}
    while rows:
        ready = [row for row in rows if row._mapping[parent] in known]
        if not ready:
            raise Misconfigured(f"--from: expected rows of {table.name} whose parents exist, got others")
        yield from (ready[first : first + _AT_ONCE] for first in range(0, len(ready), _AT_ONCE))
        known |= {row._mapping[key.name] for row in ready}
        rows = [row for row in rows if row._mapping[key.name] not in known]


def _check_count(connection: Connection, table: Table, expected: int) -> None:
    got = connection.scalar(select(func.count()).select_from(table))
    if got != expected:
        raise RuntimeError(f"expected {expected} rows of {table.name} in the new database, got {got}")


class _Resealing:
    """Encrypts secrets with the key of the new zoo.

    Args:
        old: Decrypts; None: the old zoo has no key, and no secrets.
        new: Encrypts; None: the new zoo has no key.
    """

    def __init__(self, old: Sealer | None, new: Sealer | None) -> None:
        self._old, self._new = old, new

    def renewed(self, table: Table, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its secrets encrypted for the new zoo.

        Raises:
            Misconfigured: a key is missing, or the old key does not decrypt a secret.
        """
        sealed = [name for name in _SEALED.get(table.name, ()) if row[name] is not None and is_sealed(row[name])]
        return {**row, **{name: self._again(row[name]) for name in sealed}}

    def _again(self, sealed: str) -> str:
        if self._old is None or self._new is None:
            raise Misconfigured(
                "PNC_SECRET_KEY: expected keys of both zoos, because webhooks have secrets, got none for the "
                f"{'old' if self._old is None else 'new'} zoo; see docs/operations.md"
            )
        return self._new.seal(self._old.open(sealed))
