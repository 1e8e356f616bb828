"""Modules: what was cloned, and their bundles."""

from sqlalchemy import select
from sqlalchemy.orm import Session, defer, lazyload, selectinload, undefer_group
from sqlalchemy.orm.interfaces import ORMOption

from app.db import archive
from app.db.pages import Page, Window, page
from app.db.tables import SHOWN
from app.errors import NotFound
from app.modules.tables import BundleRow, ModuleRow

AS_SHOWN = (lazyload("*"), undefer_group(SHOWN), selectinload(ModuleRow.bundles))
"""What an answer says of a module beside its own row: its bundles and the names of its versions."""


def list_modules(
    session: Session, window: Window, *, target_fingerprint: str | None = None, archived: bool = False
) -> Page[ModuleRow]:
    """Modules, newest first, for one target's fingerprint or all; archived ones only when asked for."""
    query = select(ModuleRow).where(ModuleRow.purged_at.is_(None)).options(*AS_SHOWN, defer(ModuleRow.manifest))
    if not archived:
        query = query.where(ModuleRow.archived_at.is_(None))
    if target_fingerprint is not None:
        query = query.where(ModuleRow.target_fingerprint == target_fingerprint)
    return page(session, query, ModuleRow.id, str, window)


def get(session: Session, module_id: str, *options: ORMOption, purged: bool = False, keep: bool = False) -> ModuleRow:
    """One module.

    Args:
        session: A session; a writing one, if the module is to be kept.
        module_id: Its id.
        *options: How to load what hangs on it.
        purged: Also one that was purged.
        keep: Nobody purges it until the transaction ends, in which something comes to refer to it.

    Raises:
        NotFound: there is none with this id.
    """
    held = {"read": True} if keep else None
    module = session.get(ModuleRow, module_id, options=options, with_for_update=held)
    missing = f"expected a module, got none with id {module_id!r:.80}; see GET /v1/modules"
    return archive.found(module, missing, purged=purged)


def set_archived(session: Session, module_id: str, archived: bool) -> ModuleRow:
    """Archive or restore a module; where it is attached it goes on.

    Raises:
        NotFound: there is none with this id.
    """
    module = get(session, module_id)
    archive.set_archived(session, module, archived)
    return module


def bundle(session: Session, module_id: str, payload: str) -> BundleRow:
    """One file of a module, `thin` or `full`.

    Raises:
        NotFound: there is no such module, or it has no such file.
    """
    found = [b for b in get(session, module_id).bundles if b.payload == payload]
    if not found:
        raise NotFound(f"{module_id}: expected a bundle with payload {payload!r:.20}, got none; try the other payload")
    return found[0]
