"""Compositions: submit, list, find the one of a set of modules, cancel, delete."""

import hashlib
from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session, lazyload, undefer, undefer_group

from app.compositions.tables import ENDED, CompositionModuleRow, CompositionRow
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.db import archive, clock, runs
from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.db.tables import SHOWN
from app.deployments import checks
from app.errors import Conflict, Invalid, InvalidTransition, NotFound
from app.models.tables import VersionRow
from app.modules import service as modules
from app.modules.tables import ModuleRow
from app.store.objects import Stored

MOST = 20
"""Limit of a workspace's compositions that have not ended."""
AS_SHOWN = (undefer_group(SHOWN), undefer(CompositionRow.manifest))
"""Loads the columns that an answer shows."""


def submit(
    session: Session, *, target: str, module_ids: Sequence[str], dataset_id: str, head: str, keep_anyway: bool = False
) -> CompositionRow:
    """Submit a composition, which a worker fits.

    Args:
        session: A writing session.
        target: Reference of the target's version.
        module_ids: Ids of the modules, in any order.
        dataset_id: Id of a dataset with labels and with images of the classes of the target and of every module.
        head: `affine`, `joint` or `ridge`.
        keep_anyway: Keep the composition although the modules without it are surely more accurate.

    Raises:
        NotFound: there is no such module or dataset.
        Invalid: the target cannot be served, a module is named twice, or the dataset lacks images.
        Archived: a module or the dataset is archived.
        TargetMismatch: a module was cloned for another target.
        ClassCollision: two modules have the same class.
        Unsigned: the workspace requires a trusted signature, and a module has none.
        Conflict: too many compositions wait.
    """
    version = checks.servable(session, target)
    if len(set(module_ids)) != len(module_ids):
        raise Invalid.at("/modules", "repeated", f"expected every module once, got {list(module_ids)}")
    chosen: list[ModuleRow] = []
    for module in (modules.get(session, module_id, lazyload("*"), keep=True) for module_id in sorted(module_ids)):
        archive.check_live(module)
        checks.check_fits(session, version, chosen, module)
        chosen.append(module)
    dataset = datasets.get(session, dataset_id)
    archive.check_live(dataset)
    _check_images(dataset, version, chosen)
    open_ones = select(func.count(CompositionRow.id)).where(CompositionRow.state.not_in(ENDED))
    if (session.scalar(open_ones) or 0) >= MOST:
        raise Conflict(f"expected at most {MOST} unfinished compositions, got one more; wait, or cancel one")
    row = CompositionRow(
        id=new_id("cmp"), target_version_id=version.id, dataset_id=dataset.id, head=head, keep_anyway=keep_anyway,
        modules_digest=digest_of(m.id for m in chosen), message="waiting for a worker",
        members=[CompositionModuleRow(module_id=m.id) for m in chosen],
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def digest_of(module_ids: Iterable[str]) -> str:
    """The digest by which a set of modules is found."""
    return hashlib.sha256("\n".join(sorted(module_ids)).encode()).hexdigest()


def newest(session: Session, version_id: str, module_ids: Sequence[str]) -> CompositionRow | None:
    """The newest ready composition of exactly these modules on a target; None: there is none.

    Its row is locked against deletion until this transaction ends.
    """
    if not module_ids:
        return None
    query = select(CompositionRow).where(
        CompositionRow.target_version_id == version_id,
        CompositionRow.modules_digest == digest_of(module_ids),
        CompositionRow.state == "ready",
        CompositionRow.deleted_at.is_(None),
    )
    query = query.order_by(CompositionRow.id.desc()).limit(1).options(lazyload("*"))
    return session.scalars(query.with_for_update(read=True)).one_or_none()


def get(session: Session, composition_id: str, *, lock: bool = False) -> CompositionRow:
    """One composition.

    Raises:
        NotFound: there is none with this id, or it was deleted.
    """
    row = session.get(CompositionRow, composition_id, with_for_update=lock or None, options=AS_SHOWN)
    if row is None or row.deleted_at is not None:
        raise NotFound(f"expected a composition, got none with id {composition_id!r:.80}; see GET /v1/compositions")
    return row


def stored(session: Session, composition_id: str) -> Stored:
    """The file of a composition in the store.

    Raises:
        NotFound: there is no such composition, or it is not ready.
    """
    row = get(session, composition_id)
    if row.key is None or row.digest is None or row.bytes is None:
        raise NotFound(f"{row.id}: expected a ready composition, got one that is {row.state}; wait until it is ready")
    return Stored(row.key, row.digest, row.bytes)


def list_compositions(session: Session, window: Window, *, module: str | None = None) -> Page[CompositionRow]:
    """Compositions, newest first.

    Args:
        session: A session of the workspace.
        window: Part of the list to return.
        module: Only compositions with this module; None: all.
    """
    query = select(CompositionRow).where(CompositionRow.deleted_at.is_(None)).options(*AS_SHOWN)
    if module is not None:
        query = query.where(CompositionRow.members.any(CompositionModuleRow.module_id == module))
    return page(session, query, CompositionRow.id, str, window)


def cancel(session: Session, composition_id: str) -> CompositionRow:
    """Cancel a composition: a waiting one at once, a running one as soon as its worker reads the request.

    Raises:
        NotFound: there is none with this id.
        InvalidTransition: it has ended.
    """
    row = get(session, composition_id, lock=True)
    if row.state in ENDED:
        raise InvalidTransition(f"{row.id}: expected a composition that has not ended, got one that is {row.state}")
    runs.cancel(session, row)
    return row


def delete(session: Session, composition_id: str) -> None:
    """Delete a composition that has ended; its file becomes garbage.

    The caller checks that no deployment wants it (`app.deployments.service.check_unused`).

    Raises:
        NotFound: there is none with this id.
        Conflict: it has not ended.
    """
    row = get(session, composition_id, lock=True)
    if row.state not in ENDED:
        raise Conflict(f"{row.id}: expected a composition that has ended, got one that is {row.state}; cancel it first")
    row.deleted_at, row.key = clock.now(session), None


def _check_images(dataset: DatasetRow, version: VersionRow, chosen: Sequence[ModuleRow]) -> None:
    """Check that a dataset has images of the target and of every module.

    Raises:
        Invalid: it has none of one of them.
    """
    for owner, names in ((version.ref, version.spec["classes"]), *((m.id, m.classes) for m in chosen)):
        if not any(dataset.counts.get(name, 0) for name in names):
            detail = f"expected images of some classes of {owner} ({', '.join(names[:4])}) in {dataset.id}, got none"
            raise Invalid.at("/dataset", "too_few_images", f"{detail}; add images")
