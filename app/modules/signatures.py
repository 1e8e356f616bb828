"""Trusted public keys of a workspace, and signatures of modules."""

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
        Invalid: the name or the key is not valid.
        AlreadyExists: there is a trusted key with this name.
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
    """Trusted keys, newest first."""
    return page(session, select(TrustedKeyRow), TrustedKeyRow.id, str, window)


def distrust(session: Session, name: str) -> None:
    """Stop trusting a key.

    A deployment whose modules the key signed keeps serving until it changes or the serving process restarts.

    Raises:
        NotFound: there is no trusted key with this name.
    """
    row = _by_name(session, name)
    if row is None:
        raise NotFound(f"expected a trusted key, got none named {name!r:.80}; see GET /v1/trusted-keys")
    session.delete(row)


def put(session: Session, module_id: str, text: str) -> SignatureRow:
    """Store a signature of a module. It replaces an earlier signature.

    Args:
        session: A writing session of the workspace.
        module_id: Id of the module.
        text: Content of the signature's file.

    Raises:
        NotFound: there is no such module.
        Invalid: the signature is damaged, its key is not trusted, or it is a signature of other bundles.
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
        NotFound: there is no such module, or it has no signature.
    """
    row = session.get(SignatureRow, modules.get(session, module_id).id)
    if row is None:
        raise NotFound(f"{module_id}: expected a signed module, got one without; sign it with `pnc modules sign`")
    return row


def check_required(session: Session, module: ModuleRow) -> None:
    """Check that a module has a valid signature if its workspace requires one.

    Raises:
        Unsigned: the workspace requires signatures, and the module has no signature of its bundles by a trusted key.
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
    """Check the signatures of modules before they are served.

    Each rollback and each change of the serving process waits for this check. So it makes one query if no workspace
    requires signatures.

    Args:
        session: A session of the workspace, or of none.
        module_ids: Ids of the modules.

    Raises:
        Unsigned: a module's workspace requires signatures, and the module has no valid one.
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
    signed = signature.statement
    if signed.bundles != have or signed.module != module.id or signed.target_fingerprint != module.target_fingerprint:
        raise Unsigned(
            f"{module.id}: expected a signature of its bundles {have}, got one of {signed.bundles}; sign again"
        )
    return signature


def _by_name(session: Session, name: str) -> TrustedKeyRow | None:
    mine = TrustedKeyRow.workspace == workspace_of(session)
    return session.scalars(select(TrustedKeyRow).where(mine, TrustedKeyRow.name == name)).one_or_none()
