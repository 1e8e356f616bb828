"""Purging: what was archived goes for good, and its bytes with it.

The row stays, as a stone that says what lay there: id, name or number, digests and fingerprint, which jobs, revisions
and signatures refer to. What it held is emptied: weights, images, bundles, descriptions, classes, figures. Whoever
purges has the row to himself, and whoever comes to refer to it holds it (`archive.hold`), so that neither overlooks
the other; rows go in one transaction, and objects after it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.db import clock
from app.db.tables import Archivable
from app.errors import InUse, Problem
from app.lifecycle import blockers as obstacles
from app.lifecycle import garbage
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
class Bytes:
    """One object of what is purged."""

    digest: str
    bytes: int
    """As long as it is in the store; 0 afterwards."""
    fate: Fate
    """`stored`: it would go; `kept`: `kept_by` needs it, too; `gone`; `left` to the next sweep, or `pnc gc`."""
    kept_by: str | None = None
    """Something else of the workspace that has the same bytes."""


@dataclass(frozen=True)
class Purge:
    """What a purge takes away, or would."""

    kind: Kind
    id: str
    name: str
    rows: tuple[str, ...]
    """Names of all that goes."""
    objects: tuple[Bytes, ...]
    obstacles: tuple[Problem, ...]
    """What stands in the way; with any, nothing goes."""
    purged_at: datetime | None
    """When it went; None: it is there still."""


Find = Callable[[Session], Archivable]
"""Looks up what is to be purged, also when it was already."""


def plan(zoo: Zoo, find: Find) -> Purge:
    """What `purge` would do now; nothing is written.

    Raises:
        NotFound: there is no such thing.
    """
    with zoo.database.read() as session:
        found = preview(session, find(session))
    return replace(found, objects=tuple(_weighed(zoo, one) for one in found.objects))


def purge(zoo: Zoo, find: Find) -> Purge:
    """Remove something for good; what was purged already is told of again.

    Args:
        zoo: As its workspace sees it.
        find: Looks it up.

    Raises:
        NotFound: there is no such thing.
        InUse: something stands in the way; nothing has changed.
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
    return replace(after, objects=tuple(_taken(zoo, one) for one in after.objects))


def kind_of(row: Archivable) -> Kind:
    """What a row is."""
    return next(kind for kind, table in _TABLES if isinstance(row, table))


def preview(session: Session, row: Archivable) -> Purge:
    """What there is of a row and all that goes with it, as the rows tell."""
    parts = _parts(session, row)
    problems = () if row.purged_at is not None else (p for part in parts for p in obstacles.of(session, part))
    objects = dict(pair for part in _all_parts(session, row) for pair in _objects(part))
    return Purge(
        kind=kind_of(row),
        id=row.id,
        name=obstacles.name_of(row),
        rows=tuple(obstacles.name_of(part) for part in parts),
        objects=tuple(_shared(session, row, digest, size) for digest, size in objects.items()),
        obstacles=tuple(dict.fromkeys(problems)),
        purged_at=row.purged_at,
    )


def _locked(session: Session, row: Archivable) -> Purge:
    """The same, of rows that nobody can come to refer to until the transaction ends."""
    session.refresh(row, ["archived_at", "purged_at"], with_for_update=True)
    for part in _parts(session, row):
        session.refresh(part, with_for_update=True)
    return preview(session, row)


def _parts(session: Session, row: Archivable) -> list[Archivable]:
    """What has not gone yet: a model with its versions, or the thing itself."""
    return [part for part in _all_parts(session, row) if part.purged_at is None]


def _all_parts(session: Session, row: Archivable) -> Sequence[Archivable]:
    if not isinstance(row, ModelRow):
        return [row]
    versions = session.scalars(select(VersionRow).where(VersionRow.model_id == row.id).order_by(VersionRow.number))
    return [*versions, row]


def _objects(row: Archivable) -> Iterator[tuple[str, int]]:
    """Digests and sizes of what a row names, or named."""
    if isinstance(row, ModuleRow):
        yield from ((bundle.digest, bundle.bytes) for bundle in row.bundles)
    elif isinstance(row, VersionRow | DatasetRow):
        yield row.digest, row.bytes


def _shared(session: Session, row: Archivable, digest: str, size: int) -> Bytes:
    """An object, and who else of the same workspace needs it. Of others nothing is told: they may have it, too."""
    key, parts = key_of(digest), _all_parts(session, row)
    own, made_at = {part.id for part in parts}, max(_made_at(part) for part in parts)
    users = (
        select(ModuleRow.id).join(BundleRow).where(BundleRow.key == key),
        select(DatasetRow.id).where(DatasetRow.key == key),
        select(VersionRow.id).where(VersionRow.key == key),
        select(UploadRow.id).where(UploadRow.key == key, UploadRow.completed_at > made_at),
    )
    others = [name for query in users for name in session.scalars(query) if name not in own]
    return Bytes(digest, size, "kept" if others else "stored", others[0] if others else None)


def _empty(session: Session, row: Archivable) -> None:
    """Leave the stone alone."""
    row.purged_at = clock.now(session)
    row.archived_at = row.archived_at or row.purged_at
    for digest, _ in _objects(row):  # what it was made of; an upload that came later is for something else
        made_of = (UploadRow.key == key_of(digest)) & (UploadRow.completed_at <= _made_at(row))
        session.execute(delete(UploadRow).where(made_of))
    if isinstance(row, VersionRow):
        _empty_version(session, row)
    elif isinstance(row, DatasetRow):
        row.classes, row.counts, row.rows, row.key, row.bytes = [], {}, 0, "", 0
    elif isinstance(row, ModuleRow):
        row.classes, row.manifest, row.evidence = [], {}, None
        for bundle in row.bundles:
            bundle.key, bundle.bytes = "", 0
        session.execute(delete(SignatureRow).where(SignatureRow.module_id == row.id))
    elif isinstance(row, ModelRow):
        row.description, row.clonable = "", None


def _empty_version(session: Session, row: VersionRow) -> None:
    row.spec, row.licence, row.key, row.bytes, row.parameters, row.macs = {}, "", "", 0, None, None
    row.status, row.problem = "rejected", {"code": "purged", "detail": "it was purged and does not come back"}
    session.execute(delete(AliasRow).where(AliasRow.version_id == row.id))


def _made_at(row: Archivable) -> datetime:
    assert isinstance(row, ModelRow | VersionRow | DatasetRow | ModuleRow)
    return row.created_at


def _weighed(zoo: Zoo, one: Bytes) -> Bytes:
    """With the size that it has in the store; `gone` when there is none."""
    size = zoo.store.size(key_of(one.digest))
    return replace(one, bytes=size or 0, fate="gone" if size is None and one.fate == "stored" else one.fate)


def _taken(zoo: Zoo, one: Bytes) -> Bytes:
    if one.kept_by is not None:
        return one
    return replace(one, bytes=0, fate="gone" if garbage.take(zoo, key_of(one.digest)) else "left")
