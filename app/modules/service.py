"""Modules and their bundles: list, read, archive."""

from sqlalchemy import select
from sqlalchemy.orm import Session, lazyload, selectinload, undefer_group
from sqlalchemy.orm.interfaces import ORMOption

from app.db import archive
from app.db.pages import Page, Window, page
from app.db.tables import SHOWN
from app.errors import NotFound
from app.modules.tables import BundleRow, ModuleRow

AS_SHOWN = (lazyload("*"), undefer_group(SHOWN), selectinload(ModuleRow.bundles))
"""Loads a module with its bundles and the references of its versions, which an answer shows."""


def list_modules(
    session: Session, window: Window, *, target_fingerprint: str | None = None, archived: bool = False
) -> Page[ModuleRow]:
    """Modules, newest first.

    Args:
        session: A session of the workspace.
        window: Part of the list to return.
        target_fingerprint: Only modules for the target with this fingerprint; None: modules for all targets.
        archived: Include archived modules.
    """
    query = select(ModuleRow).where(ModuleRow.purged_at.is_(None)).options(*AS_SHOWN)
    if not archived:
        query = query.where(ModuleRow.archived_at.is_(None))
    if target_fingerprint is not None:
        query = query.where(ModuleRow.target_fingerprint == target_fingerprint)
    return page(session, query, ModuleRow.id, str, window)


def get(session: Session, module_id: str, *options: ORMOption, purged: bool = False, keep: bool = False) -> ModuleRow:
    """One module.

    Args:
        session: A session of the workspace; a writing session if `keep`.
        module_id: Id of the module.
        *options: Loader options for related rows.
        purged: Return a purged module, too.
        keep: Lock the module against purging until this transaction ends.

    Raises:
        NotFound: there is no module with this id, or it was purged.
    """
    held = {"read": True} if keep else None
    module = session.get(ModuleRow, module_id, options=options, with_for_update=held)
    missing = f"expected a module, got none with id {module_id!r:.80}; see GET /v1/modules"
    return archive.found(module, missing, purged=purged)


def set_archived(session: Session, module_id: str, archived: bool) -> ModuleRow:
    """Archive or restore a module. Deployments that have it keep serving it.

    Raises:
        NotFound: there is no module with this id.
    """
    module = get(session, module_id)
    archive.set_archived(session, module, archived)
    return module


def bundle(session: Session, module_id: str, payload: str) -> BundleRow:
    """One bundle of a module.

    Args:
        session: A session of the workspace.
        module_id: Id of the module.
        payload: `thin` or `full`.

    Raises:
        NotFound: there is no such module, or it has no bundle with this payload.
    """
    found = [b for b in get(session, module_id).bundles if b.payload == payload]
    if not found:
        raise NotFound(f"{module_id}: expected a bundle with payload {payload!r:.20}, got none; try the other payload")
    return found[0]
