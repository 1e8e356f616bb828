"""Whom a workspace trusts, and who has vouched for a module."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access import workspaces
from app.access.tables import WorkspaceRow
from app.db.ids import new_id
from app.db.isolation import workspace_of
from app.db.pages import Page, Window, page
from app.errors import AlreadyExists, Invalid, NotFound, Unsigned
from app.modules import service as modules
from app.modules.tables import ModuleRow, SignatureRow, TrustedKeyRow
from app.names import check_name
from pnc_core.errors import SignatureError
from pnc_core.module.signing import Signature, read_public, read_signature


def trust(session: Session, *, name: str, key: str) -> TrustedKeyRow:
    """Trust a public key.

    Raises:
        Invalid: the name or the key is not one.
        AlreadyExists: the name is taken.
    """
    check_name(name)
    try:
        read_public(key)
    except SignatureError as error:
        raise Invalid.at("/key", error.code, str(error)) from None
    if _by_name(session, name) is not None:
        raise AlreadyExists(f"expected a new name, got {name!r}, which is taken; choose another")
    row = TrustedKeyRow(id=new_id("sig"), name=name, key=key)
    session.add(row)
    session.flush()
    return row


def list_trusted(session: Session, window: Window) -> Page[TrustedKeyRow]:
    """Keys that are trusted, newest first."""
    return page(session, select(TrustedKeyRow), TrustedKeyRow.id, str, window)


def distrust(session: Session, name: str) -> None:
    """Trust a key no more; what is served goes on until it changes or its process starts anew.

    Raises:
        NotFound: there is none with this name.
    """
    row = _by_name(session, name)
    if row is None:
        raise NotFound(f"expected a trusted key, got none named {name!r:.80}; see GET /v1/trusted-keys")
    session.delete(row)


def put(session: Session, module_id: str, text: str) -> SignatureRow:
    """Keep a signature of a module, in place of an earlier one.

    Raises:
        NotFound: there is no such module.
        Invalid: the signature is damaged, by a key that is not trusted, or about other bytes.
    """
    module = modules.get(session, module_id)
    try:
        signature = _checked(session, module, text)
    except (SignatureError, Unsigned) as error:
        raise Invalid.at("/signature", error.code, str(error)) from None
    row = session.get(SignatureRow, module.id) or SignatureRow(module_id=module.id)
    row.key, row.text = signature.key, text
    session.add(row)
    session.flush()
    return row


def get(session: Session, module_id: str) -> SignatureRow:
    """The signature of a module.

    Raises:
        NotFound: there is no such module, or nobody has signed it.
    """
    row = session.get(SignatureRow, modules.get(session, module_id).id)
    if row is None:
        raise NotFound(f"{module_id}: expected a signed module, got one without; sign it with `pnc modules sign`")
    return row


def check_required(session: Session, module: ModuleRow) -> None:
    """See that a module may be attached in its workspace.

    Raises:
        Unsigned: signatures are required, and it has none that a trusted key has made of these very bytes.
    """
    if not workspaces.get(session, module.workspace).require_signature:
        return
    row = session.get(SignatureRow, module.id)
    if row is None:
        raise Unsigned(f"{module.id}: expected a signature by a trusted key, got none; sign it with `pnc modules sign`")
    try:
        _checked(session, module, row.text)
    except SignatureError as error:
        raise Unsigned(f"{module.id}: {error}") from None


def check_served(session: Session, module_ids: Iterable[str]) -> None:
    """The same for all modules that shall be served, asked by whoever serves them just before.

    One query where nothing is required: it stands before every change of what is served.

    Raises:
        Unsigned: one of them may not be.
    """
    ids = list(module_ids)
    if not ids:
        return
    strict = select(WorkspaceRow.name).where(WorkspaceRow.require_signature)
    query = select(ModuleRow).where(ModuleRow.id.in_(ids), ModuleRow.workspace.in_(strict))
    for module in sorted(session.scalars(query), key=lambda module: ids.index(module.id)):
        check_required(session, module)


def _checked(session: Session, module: ModuleRow, text: str) -> Signature:
    signature = read_signature(text)
    mine = select(TrustedKeyRow.key).where(TrustedKeyRow.workspace == module.workspace)
    if signature.key not in set(session.scalars(mine)):
        raise Unsigned(f"{module.id}: expected a signature by a trusted key, got one by {signature.key}")
    have = {bundle.payload: bundle.digest for bundle in module.bundles}
    said = signature.statement
    if said.bundles != have or said.module != module.id or said.target_fingerprint != module.target_fingerprint:
        raise Unsigned(
            f"{module.id}: expected a signature of its bundles {have}, got one of {said.bundles}; sign again"
        )
    return signature


def _by_name(session: Session, name: str) -> TrustedKeyRow | None:
    mine = TrustedKeyRow.workspace == workspace_of(session)
    return session.scalars(select(TrustedKeyRow).where(mine, TrustedKeyRow.name == name)).one_or_none()
