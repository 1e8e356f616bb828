"""Garbage: objects, files and rows that nothing refers to any more, after a time of grace.

Whoever is killed between putting an object and committing its row leaves the object
behind, whoever abandons an upload its bytes. The grace is far longer than either takes.
"""

import shutil
import time
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.zoo import clock, idempotency
from app.zoo.tables import BundleRow, DatasetRow, StepRow, UploadRow, VersionRow
from app.zoo.zoo import Zoo

OBJECT_SECONDS = 3600.0
UPLOAD_SECONDS = 24 * 3600.0
_OWNERS = (BundleRow, DatasetRow, VersionRow, UploadRow, StepRow)


def collect(zoo: Zoo, *, object_seconds: float = OBJECT_SECONDS, upload_seconds: float = UPLOAD_SECONDS) -> int:
    """Remove what is left over; returns how many objects went.

    Args:
        zoo: The open zoo.
        object_seconds: Age from which an object without a row is garbage.
        upload_seconds: Age from which an upload that was not completed is.
    """
    with zoo.database.write() as session:
        idempotency.sweep_keys(session)
        _forget_uploads(session, upload_seconds)
    _remove_staged(zoo, upload_seconds)
    return sum(_remove_object(zoo, key) for key in zoo.store.older_than(object_seconds))


def _forget_uploads(session: Session, seconds: float) -> None:
    limit = clock.now(session) - timedelta(seconds=seconds)
    session.execute(delete(UploadRow).where(UploadRow.key.is_(None), UploadRow.created_at < limit))


def _remove_staged(zoo: Zoo, seconds: float) -> None:
    limit = time.time() - seconds
    for path in [p for p in zoo.staging.iterdir() if p.stat().st_mtime < limit]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_object(zoo: Zoo, key: str) -> bool:
    """Look and remove under the write lock: no row can begin to name the object in between."""
    with zoo.database.write() as session:
        if any(session.scalar(select(table.key).where(table.key == key).limit(1)) for table in _OWNERS):
            return False
        zoo.store.delete(key)
        return True
