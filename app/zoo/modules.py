"""Modules: what was cloned, and their bundles."""

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import ORMOption

from app.zoo.errors import NotFound
from app.zoo.pages import Page, Window, page
from app.zoo.tables import BundleRow, ModuleRow


def list_modules(session: Session, window: Window, *, target_fingerprint: str | None = None) -> Page[ModuleRow]:
    """Modules, newest first, for one target's fingerprint or all."""
    query = select(ModuleRow)
    if target_fingerprint is not None:
        query = query.where(ModuleRow.target_fingerprint == target_fingerprint)
    return page(session, query, ModuleRow.id, str, window)


def get(session: Session, module_id: str, *options: ORMOption) -> ModuleRow:
    """One module.

    Args:
        session: A session.
        module_id: Its id.
        *options: How to load what hangs on it.

    Raises:
        NotFound: there is none with this id.
    """
    module = session.get(ModuleRow, module_id, options=options)
    if module is None:
        raise NotFound(f"expected a module, got none with id {module_id!r:.80}; see GET /v1/modules")
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
