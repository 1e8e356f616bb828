"""Purging: deletes an archived record's contents and its objects for good.

The row stays with its id, name or number, digests and fingerprint, because jobs, revisions and signatures refer to
them. All other columns are emptied, and the objects in the store are deleted: weights, images and bundles. A purge
locks the row for update; a transaction that adds a reference locks it for share (`archive.hold`). So neither overlooks
the other. One transaction empties the rows, and the objects are deleted after it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.datasets import inspections
from app.datasets.tables import DatasetRow
from app.db import clock
from app.db.tables import Archivable
from app.errors import InUse, Problem
from app.lifecycle import blockers, garbage
from app.models.tables import AliasRow, ModelRow, VersionRow
from app.modules.tables import BundleRow, ModuleRow, SignatureRow
from app.store.objects import key_of
from app.store.tables import UploadRow
from app.zoo import Zoo
from pnc_client.schemas.purges import Fate, Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
_TABLES: tuple[tuple[Kind, type[Archivable]], ...] = tuple(
    zip(KINDS, (ModelRow, VersionRow, DatasetRow, ModuleRow), strict=True)
)


@dataclass(frozen=True)
class StoredObject:
    """One object of a purged record."""

    digest: str
    bytes: int
    """Size in the store; 0 after it is deleted."""
    fate: Fate
    """`stored`: a purge would delete it; `kept`: `kept_by` needs it; `gone`: it is deleted; `left`: the next garbage
    collection deletes it."""
    kept_by: str | None = None
    """Id of another record of the workspace with the same bytes."""


@dataclass(frozen=True)
class Purge:
    """The plan or the result of a purge."""

    kind: Kind
    id: str
    name: str
    rows: tuple[str, ...]
    """Names of the purged records: a model and its versions, or one record."""
    objects: tuple[StoredObject, ...]
    """The objects that the records refer to."""
    obstacles: tuple[Problem, ...]
    """Blockers; if there is one, nothing is purged."""
    purged_at: datetime | None
    """Time of the purge; None: not purged yet."""


Find = Callable[[Session], Archivable]
"""Reads the record to purge, also after its purge."""


def plan(zoo: Zoo, find: Find) -> Purge:
    """The records and objects that `purge` would delete now, and the blockers; nothing is written.

    Raises:
        NotFound: there is no such record.
    """
    with zoo.database.read() as session:
        found = preview(session, find(session))
    return replace(found, objects=tuple(_measured(zoo, stored) for stored in found.objects))


def purge(zoo: Zoo, find: Find) -> Purge:
    """Purge a record; for a purged record, the result is the same again.

    Args:
        zoo: The zoo, as the record's workspace sees it.
        find: Reads the record.

    Raises:
        NotFound: there is no such record.
        InUse: there is a blocker; nothing has changed.
    """
    with zoo.database.write() as session:
        row = find(session)
        before = _locked(session, row)
        if before.obstacles:
            raise InUse(before.obstacles)
        for part in _parts(session, row):
            _empty(session, part)
        session.flush()
        after = replace(preview(session, row), rows=before.rows)
    return replace(after, objects=tuple(_removed(zoo, stored) for stored in after.objects))


def kind_of(row: Archivable) -> Kind:
    """The kind of a record."""
    return next(kind for kind, table in _TABLES if isinstance(row, table))


def preview(session: Session, row: Archivable) -> Purge:
    """The plan of a purge, read from the database only: sizes are those in the rows."""
    parts = _parts(session, row)
    problems = () if row.purged_at is not None else (p for part in parts for p in blockers.of(session, part))
    objects = dict(pair for part in _all_parts(session, row) for pair in _objects(part))
    return Purge(
        kind=kind_of(row),
        id=row.id,
        name=blockers.name_of(row),
        rows=tuple(blockers.name_of(part) for part in parts),
        objects=tuple(_shared(session, row, digest, size) for digest, size in objects.items()),
        obstacles=tuple(dict.fromkeys(problems)),
        purged_at=row.purged_at,
    )


def _locked(session: Session, row: Archivable) -> Purge:
    """Lock a record's rows, so that no transaction can add a reference to them, and return the plan of its purge."""
    session.refresh(row, ["archived_at", "purged_at"], with_for_update=True)
    for part in _parts(session, row):
        session.refresh(part, with_for_update=True)
    return preview(session, row)


def _parts(session: Session, row: Archivable) -> list[Archivable]:
    """The rows that are not purged yet: a model's versions and the model, or the row itself."""
    return [part for part in _all_parts(session, row) if part.purged_at is None]


def _all_parts(session: Session, row: Archivable) -> Sequence[Archivable]:
    if not isinstance(row, ModelRow):
        return [row]
    versions = session.scalars(select(VersionRow).where(VersionRow.model_id == row.id).order_by(VersionRow.number))
    return [*versions, row]


def _objects(row: Archivable) -> Iterator[tuple[str, int]]:
    """Digests and sizes of the objects that a row refers to, or referred to before its purge."""
    if isinstance(row, ModuleRow):
        yield from ((bundle.digest, bundle.bytes) for bundle in row.bundles)
    elif isinstance(row, VersionRow | DatasetRow):
        yield row.digest, row.bytes


def _shared(session: Session, row: Archivable, digest: str, size: int) -> StoredObject:
    """An object, with another record of the same workspace that needs it.

    Records of other workspaces are not shown, although they may need the object, too.
    """
    key, parts = key_of(digest), _all_parts(session, row)
    own, made_at = {part.id for part in parts}, max(_made_at(part) for part in parts)
    users = (
        select(ModuleRow.id).join(BundleRow).where(BundleRow.key == key),
        select(DatasetRow.id).where(DatasetRow.key == key),
        select(VersionRow.id).where(VersionRow.key == key),
        select(UploadRow.id).where(UploadRow.key == key, UploadRow.completed_at > made_at),
    )
    others = [name for query in users for name in session.scalars(query) if name not in own]
    return StoredObject(digest, size, "kept" if others else "stored", others[0] if others else None)


def _empty(session: Session, row: Archivable) -> None:
    """Empty a row, and delete the rows of its upload, aliases and signature."""
    row.purged_at = clock.now(session)
    row.archived_at = row.archived_at or row.purged_at
    for digest, _ in _objects(row):  # uploads of the same bytes that were completed later are for other records
        made_of = (UploadRow.key == key_of(digest)) & (UploadRow.completed_at <= _made_at(row))
        session.execute(delete(UploadRow).where(made_of))
    if isinstance(row, VersionRow):
        _empty_version(session, row)
    elif isinstance(row, DatasetRow):
        row.classes, row.counts, row.rows, row.key, row.bytes = [], {}, 0, "", 0
        inspections.forget(session, row)
    elif isinstance(row, ModuleRow):
        row.classes, row.manifest, row.evidence = [], {}, None
        for bundle in row.bundles:
            bundle.key, bundle.bytes = "", 0
        session.execute(delete(SignatureRow).where(SignatureRow.module_id == row.id))
    elif isinstance(row, ModelRow):
        row.description, row.clonable = "", None


def _empty_version(session: Session, row: VersionRow) -> None:
    row.spec, row.licence, row.key, row.bytes, row.parameters, row.macs = {}, "", "", 0, None, None
    row.status, row.problem = "rejected", {"code": "purged", "detail": "it was purged and cannot be restored"}
    session.execute(delete(AliasRow).where(AliasRow.version_id == row.id))


def _made_at(row: Archivable) -> datetime:
    assert isinstance(row, ModelRow | VersionRow | DatasetRow | ModuleRow)
    return row.created_at


def _measured(zoo: Zoo, stored: StoredObject) -> StoredObject:
    """The object with its size in the store, or with the fate `gone` if it is not in the store."""
    size = zoo.store.size(key_of(stored.digest))
    is_gone = size is None and stored.fate == "stored"
    return replace(stored, bytes=size or 0, fate="gone" if is_gone else stored.fate)


def _removed(zoo: Zoo, stored: StoredObject) -> StoredObject:
    """Delete an object that no other record of the workspace needs, and return its fate."""
    if stored.kept_by is not None:
        return stored
    return replace(stored, bytes=0, fate="gone" if garbage.remove_if_unused(zoo, key_of(stored.digest)) else "left")
