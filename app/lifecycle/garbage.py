"""Garbage: objects, files and rows that nothing refers to any more, after a time of grace.

Whoever is killed between putting an object and committing its row leaves the object
behind, whoever abandons an upload its bytes. The grace is far longer than either takes.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import Session

from app.access import audit
from app.datasets.tables import DatasetRow
from app.db import clock, idempotency
from app.jobs.tables import StepRow
from app.models.tables import VersionRow
from app.modules.tables import BundleRow
from app.store import object_locks
from app.store.tables import UploadRow
from app.tables import OWNERS
from app.webhooks import outbox
from app.zoo import Zoo

log = logging.getLogger(__name__)
OBJECT_SECONDS = 3600.0
UPLOAD_SECONDS = 24 * 3600.0
UNUSED_SECONDS = 7 * 24 * 3600.0
"""A complete upload of which nothing was made goes after this time."""
_AT_ONCE = 500
Owner = type[BundleRow | DatasetRow | StepRow | UploadRow | VersionRow]
_USERS = (BundleRow, DatasetRow, VersionRow)


@dataclass(frozen=True)
class Garbage:
    """What is left over."""

    objects: tuple[str, ...]
    """Keys of objects that no row names."""
    transfers: tuple[str, ...]
    """Names of transfers into the store that were not ended."""
    uploads: tuple[str, ...]
    """Ids of uploads that were not completed, or not used."""
    files: tuple[Path, ...]
    """Files and directories in the making that nobody goes on with."""


def find(zoo: Zoo, *, object_seconds: float = OBJECT_SECONDS, upload_seconds: float = UPLOAD_SECONDS) -> Garbage:
    """What `remove` would take away now.

    Args:
        zoo: The open zoo.
        object_seconds: Age from which an object without a row is garbage.
        upload_seconds: Age from which an upload that was not completed is.
    """
    with zoo.database.read() as session:
        uploads = tuple(session.scalars(select(UploadRow.id).where(_abandoned(session, upload_seconds))))
        objects = tuple(_unnamed(session, zoo.store.older_than(object_seconds), set(uploads)))
    return Garbage(
        objects=objects,
        transfers=tuple(zoo.store.unfinished(upload_seconds)),
        uploads=uploads,
        files=tuple(_left_files(zoo.staging, upload_seconds)),
    )


def remove(
    zoo: Zoo, garbage: Garbage, *, object_seconds: float = OBJECT_SECONDS, upload_seconds: float = UPLOAD_SECONDS
) -> Garbage:
    """Take garbage away; returns what really went, since somebody may have come to need some of it."""
    with zoo.database.write() as session:
        idempotency.sweep_keys(session)
        outbox.forget_old(session)
        audit.sweep(session)
        which = and_(UploadRow.id.in_(garbage.uploads), _abandoned(session, upload_seconds))
        uploads = tuple(session.scalars(delete(UploadRow).where(which).returning(UploadRow.id)))
    for path in garbage.files:
        _remove_file(path)
    for name in garbage.transfers:
        zoo.store.discard(name)
    objects = tuple(key for key in garbage.objects if _remove_object(zoo, key, object_seconds))
    return Garbage(objects, garbage.transfers, uploads, garbage.files)


def collect(zoo: Zoo, *, object_seconds: float = OBJECT_SECONDS, upload_seconds: float = UPLOAD_SECONDS) -> int:
    """Find and remove what is left over; returns how many objects went.

    Args:
        zoo: The open zoo.
        object_seconds: Age from which an object without a row is garbage.
        upload_seconds: Age from which an upload that was not completed is.
    """
    found = find(zoo, object_seconds=object_seconds, upload_seconds=upload_seconds)
    return len(remove(zoo, found, object_seconds=object_seconds, upload_seconds=upload_seconds).objects)


def _abandoned(session: Session, seconds: float) -> ColumnElement[bool]:
    """Uploads that were begun and not completed, or completed and not used by anything."""
    now = clock.now(session)
    used = or_(*(select(table.key).where(table.key == UploadRow.key).exists() for table in _USERS))
    old = UploadRow.completed_at < now - timedelta(seconds=UNUSED_SECONDS)
    unused = and_(UploadRow.used_at.is_(None), old, ~used)
    return or_(and_(UploadRow.key.is_(None), UploadRow.created_at < now - timedelta(seconds=seconds)), unused)


def _unnamed(session: Session, keys: Iterator[str], leaving: set[str]) -> Iterator[str]:
    """Those that no row names, but for rows of uploads that are leaving."""
    while some := list(islice(keys, _AT_ONCE)):
        named = {
            key
            for table in OWNERS
            for key, row_id in session.execute(select(table.key, _id(table)).where(table.key.in_(some)))
            if row_id not in leaving
        }
        yield from (key for key in some if key not in named)


def _id(table: Owner) -> ColumnElement[str]:
    return BundleRow.module_id.expression if issubclass(table, BundleRow) else table.id.expression


def _left_files(staging: Path, seconds: float) -> Iterator[Path]:
    limit = time.time() - seconds
    for path in sorted(staging.iterdir()):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < limit:
                yield path


def _remove_file(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_object(zoo: Zoo, key: str, seconds: float) -> bool:
    """Look again and remove under the object's lock: no row can begin to name it in between."""
    with zoo.database.write() as session:
        if not object_locks.claim(session, key):
            return False
        age = zoo.store.age(key)
        if age is None or age < seconds or _is_named(session, key):
            return False
        zoo.store.delete(key)
        return True


def take(zoo: Zoo, key: str) -> bool:
    """Remove at once an object that a row has just given up, unless another row names it, of whichever workspace.

    Returns:
        Whether there is nothing left to do; else somebody holds the object, or the store does not
        answer, and the next sweep looks again.
    """
    try:
        with zoo.database.of_all().write() as session:
            if not object_locks.claim(session, key):
                return False
            if not _is_named(session, key):
                zoo.store.delete(key)
            return True
    except OSError as error:
        log.warning("object %s is left for the next sweep: %s", key, error)
        return False


def _is_named(session: Session, key: str) -> bool:
    tables: Sequence[Owner] = OWNERS
    return any(session.scalar(select(table.key).where(table.key == key).limit(1)) is not None for table in tables)
