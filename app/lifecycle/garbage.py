"""Garbage collection: deletes old objects, files and rows that nothing refers to.

A process that is killed between storing an object and committing its row leaves the object behind. A client that
abandons an upload leaves the upload's bytes. Only garbage older than the limits below is deleted; the limits are far
longer than either operation takes.
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
from app.compositions.tables import CompositionRow
from app.datasets.tables import DatasetRow
from app.db import clock, idempotency
from app.jobs import events
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
"""Age from which an object without a row is garbage."""
UPLOAD_SECONDS = 24 * 3600.0
"""Age from which an upload that was not completed is garbage."""
UNUSED_SECONDS = 7 * 24 * 3600.0
"""Age from which a completed upload that nothing uses is garbage."""
_AT_ONCE = 500
EVENTS_AT_ONCE = 5000
"""Events that one transaction deletes."""
Owner = type[BundleRow | CompositionRow | DatasetRow | StepRow | UploadRow | VersionRow]
_USERS = (BundleRow, DatasetRow, VersionRow)


@dataclass(frozen=True)
class Garbage:
    """Objects, transfers, uploads and files that can be deleted."""

    objects: tuple[str, ...]
    """Keys of objects that no row refers to."""
    transfers: tuple[str, ...]
    """Names of unfinished transfers into the store."""
    uploads: tuple[str, ...]
    """Ids of uploads that were not completed or not used."""
    files: tuple[Path, ...]
    """Old files and directories in the staging directory."""


def find(zoo: Zoo, *, object_seconds: float = OBJECT_SECONDS, upload_seconds: float = UPLOAD_SECONDS) -> Garbage:
    """Find garbage; nothing is deleted.

    Args:
        zoo: The open zoo, for all workspaces.
        object_seconds: Age from which an object without a row is garbage.
        upload_seconds: Age from which an upload that was not completed is garbage.
    """
    with zoo.database.read() as session:
        uploads = tuple(session.scalars(select(UploadRow.id).where(_abandoned(session, upload_seconds))))
        objects = tuple(_unreferenced(session, zoo.store.older_than(object_seconds), set(uploads)))
    return Garbage(
        objects=objects,
        transfers=tuple(zoo.store.unfinished(upload_seconds)),
        uploads=uploads,
        files=tuple(_old_files(zoo.staging, upload_seconds)),
    )


def remove(
    zoo: Zoo, garbage: Garbage, *, object_seconds: float = OBJECT_SECONDS, upload_seconds: float = UPLOAD_SECONDS
) -> Garbage:
    """Delete garbage, old events, and old rows of the idempotency, webhook and audit logs.

    Args:
        zoo: The open zoo, for all workspaces.
        garbage: Result of `find`.
        object_seconds: As for `find`.
        upload_seconds: As for `find`.

    Returns:
        The deleted part of the garbage: some of it may be in use since it was found.
    """
    with zoo.database.write() as session:
        idempotency.sweep_keys(session)
        outbox.forget_old(session)
        audit.sweep(session)
        which = and_(UploadRow.id.in_(garbage.uploads), _abandoned(session, upload_seconds))
        uploads = tuple(session.scalars(delete(UploadRow).where(which).returning(UploadRow.id)))
    while _forget_events(zoo) == EVENTS_AT_ONCE:
        pass
    for path in garbage.files:
        _remove_file(path)
    for name in garbage.transfers:
        zoo.store.discard(name)
    objects = tuple(key for key in garbage.objects if _remove_object(zoo, key, object_seconds))
    return Garbage(objects, garbage.transfers, uploads, garbage.files)


def collect(zoo: Zoo, *, object_seconds: float = OBJECT_SECONDS, upload_seconds: float = UPLOAD_SECONDS) -> int:
    """Find and delete garbage; returns the number of deleted objects.

    Args:
        zoo: The open zoo, for all workspaces.
        object_seconds: Age from which an object without a row is garbage.
        upload_seconds: Age from which an upload that was not completed is garbage.
    """
    found = find(zoo, object_seconds=object_seconds, upload_seconds=upload_seconds)
    return len(remove(zoo, found, object_seconds=object_seconds, upload_seconds=upload_seconds).objects)


def _forget_events(zoo: Zoo) -> int:
    """Delete some old events, in a transaction of their own; returns their number."""
    with zoo.database.write() as session:
        return events.forget_old(session, zoo.settings.event_days, EVENTS_AT_ONCE)


def _abandoned(session: Session, seconds: float) -> ColumnElement[bool]:
    """Condition: the upload is old, and was not completed or is not used."""
    now = clock.now(session)
    used = or_(*(select(table.key).where(table.key == UploadRow.key).exists() for table in _USERS))
    old = UploadRow.completed_at < now - timedelta(seconds=UNUSED_SECONDS)
    unused = and_(UploadRow.used_at.is_(None), old, ~used)
    return or_(and_(UploadRow.key.is_(None), UploadRow.created_at < now - timedelta(seconds=seconds)), unused)


def _unreferenced(session: Session, keys: Iterator[str], abandoned: set[str]) -> Iterator[str]:
    """The keys that no row refers to, not counting the rows of abandoned uploads."""
    while batch := list(islice(keys, _AT_ONCE)):
        referenced = {
            key
            for table in OWNERS
            for key, row_id in session.execute(select(table.key, _id(table)).where(table.key.in_(batch)))
            if row_id not in abandoned
        }
        yield from (key for key in batch if key not in referenced)


def _id(table: Owner) -> ColumnElement[str]:
    return BundleRow.module_id.expression if issubclass(table, BundleRow) else table.id.expression


def _old_files(staging: Path, seconds: float) -> Iterator[Path]:
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
    """Check again under the object's lock, and delete: no new row can refer to a locked object."""
    with zoo.database.write() as session:
        if not object_locks.claim(session, key):
            return False
        age = zoo.store.age(key)
        if age is None or age < seconds or _is_referenced(session, key):
            return False
        zoo.store.delete(key)
        return True


def remove_if_unused(zoo: Zoo, key: str) -> bool:
    """Delete an object at once, unless a row of any workspace refers to it.

    Returns:
        False if the object is locked or the store does not answer; the next garbage collection tries again. Otherwise
        True, also if the object stays because a row refers to it.
    """
    try:
        with zoo.database.of_all().write() as session:
            if not object_locks.claim(session, key):
                return False
            if not _is_referenced(session, key):
                zoo.store.delete(key)
            return True
    except OSError as error:
        log.warning("object %s is left for the next garbage collection: %s", key, error)
        return False


def _is_referenced(session: Session, key: str) -> bool:
    tables: Sequence[Owner] = OWNERS
    return any(session.scalar(select(table.key).where(table.key == key).limit(1)) is not None for table in tables)
