"""API keys. The service shows a key's secret once and stores only its SHA-256 digest.

A secret is 256 random bits, so nobody can guess it. A plain SHA-256 is therefore as safe as a slow password hash, and a
database index can find it. A CRC-32 checksum follows the secret: it detects a mistyped key without a database query,
and secret scanners can recognise published keys by it.
"""

import hashlib
import secrets
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.tables import KeyRow, WorkspaceRow
from app.db import clock
from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.db.tables import DEFAULT
from app.errors import Invalid, NotFound, Unauthenticated
from app.names import check_name
from pnc_client.schemas.keys import Scope

SCOPES: tuple[Scope, ...] = get_args(Scope)
COOKIE = "pnc-key"
"""Name of the cookie that holds the key of a signed-in browser."""
PREFIX = "pnc_"
HINT = 10
"""Number of a secret's first characters that are stored and shown in lists."""
SIGNED_IN = timedelta(hours=12)
"""How long a browser stays signed in."""
_CHECKSUM = 8
_SECRET = 43


@dataclass(frozen=True)
class Caller:
    """The caller of a request, and the caller's permissions."""

    workspace: str
    scopes: frozenset[str]
    key_id: str | None = None
    """None: no keys are required, and every caller has all scopes."""
    name: str = ""
    requests_per_minute: int | None = None

    def check(self, session: Session) -> None:
        """Check that the caller's key is still valid.

        Raises:
            Unauthenticated: the key was revoked or has expired.
        """
        if self.key_id is not None:
            check_in_force(session, self.key_id)

    def may(self, scope: str) -> bool:
        """Whether the caller has a scope. `admin` includes all scopes, because it can make keys with any scope."""
        return scope in self.scopes or "admin" in self.scopes


ANYBODY = Caller(DEFAULT, frozenset(SCOPES))
"""The caller of every request while no keys are required."""


def create(
    session: Session,
    *,
    name: str,
    scopes: Collection[str],
    lifetime: timedelta | None = None,
    parent: KeyRow | None = None,
) -> tuple[KeyRow, str]:
    """Create a key of the session's workspace.

    Args:
        session: A writing session of the workspace.
        name: Name of the key, for people.
        scopes: Scopes of the key.
        lifetime: Time after which the key expires; None: never.
        parent: A key whose revocation also revokes this one.

    Returns:
        The key and its secret. The secret is not stored and cannot be shown again.

    Raises:
        Invalid: the name is not valid, there is no scope, or a scope is unknown.
    """
    check_name(name)
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        got = f"got {unknown[0]!r:.40}" if unknown else "got none"
        raise Invalid.at("/scopes", "invalid_scopes", f"expected some of {', '.join(SCOPES)}, {got}")
    secret = _new_secret()
    row = KeyRow(
        id=new_id("key"),
        name=name,
        digest=_digest(secret),
        hint=secret[:HINT],
        scopes=[scope for scope in SCOPES if scope in scopes],
        parent_id=parent.id if parent else None,
        expires_at=clock.now(session) + lifetime if lifetime is not None else None,
    )
    session.add(row)
    session.flush()
    return row, secret


def authenticate(session: Session, secret: str) -> Caller:
    """The caller that a secret belongs to.

    Args:
        session: A session that belongs to no workspace.
        secret: The secret from the request.

    Raises:
        Unauthenticated: there is no key with this secret, or it was revoked or has expired.
    """
    row = (
        session.scalars(select(KeyRow).where(KeyRow.digest == _digest(secret))).one_or_none()
        if is_secret(secret)
        else None
    )
    if row is None or _ended(session, row):
        raise Unauthenticated(
            "expected a valid key, got an unknown, revoked or expired one; sign in again, or ask for a new key"
        )
    limits = session.get(WorkspaceRow, row.workspace)
    return Caller(
        row.workspace, frozenset(row.scopes), row.id, row.name, limits.requests_per_minute if limits else None
    )


def check_in_force(session: Session, key_id: str) -> None:
    """Check that the key of a request or a page is still valid.

    Raises:
        Unauthenticated: the key was revoked or has expired.
    """
    row = session.get(KeyRow, key_id)
    if row is None or _ended(session, row):
        raise Unauthenticated("expected a valid key, got one that was revoked or has expired; sign in again")


def in_force(session: Session, key_ids: Collection[str]) -> set[str]:
    """The ids of the valid keys among some keys, found with one query.

    Args:
        session: A session that belongs to no workspace.
        key_ids: Ids of the keys to check.
    """
    if not key_ids:
        return set()
    now = clock.now(session)
    rows = session.execute(select(KeyRow.id, KeyRow.revoked_at, KeyRow.expires_at).where(KeyRow.id.in_(key_ids)))
    return {key for key, revoked, expires in rows if revoked is None and (expires is None or expires > now)}


def sign_in(session: Session, caller: Caller) -> tuple[KeyRow, str]:
    """Create a key for a browser. It expires after `SIGNED_IN`, and together with the caller's own key.

    Returns:
        The browser's key and its secret.

    Raises:
        Unauthenticated: the caller's key belongs to a browser itself.
    """
    parent = session.get_one(KeyRow, caller.key_id)
    if parent.parent_id is not None:
        raise Unauthenticated("expected a key from `pnc keys create`, got a browser's key; sign in with your own key")
    row, secret = create(session, name=parent.name, scopes=parent.scopes, lifetime=SIGNED_IN, parent=parent)
    if row.expires_at is not None and parent.expires_at is not None:
        row.expires_at = min(row.expires_at, parent.expires_at)
    return row, secret


def list_keys(session: Session, window: Window) -> Page[KeyRow]:
    """All keys, newest first, including revoked and expired keys and keys of browsers."""
    return page(session, select(KeyRow), KeyRow.id, str, window)


def revoke(session: Session, key_id: str) -> KeyRow:
    """Revoke a key, and the keys of all browsers that signed in with it. Revoking it again changes nothing.

    Raises:
        NotFound: there is no key with this id.
    """
    row = session.get(KeyRow, key_id)
    if row is None:
        raise NotFound(f"expected a key, got none with id {key_id!r:.80}; see GET /v1/keys")
    children: Sequence[KeyRow] = session.scalars(select(KeyRow).where(KeyRow.parent_id == row.id)).all()
    now = clock.now(session)
    for one in (row, *children):
        one.revoked_at = one.revoked_at or now
    return row


def _ended(session: Session, row: KeyRow) -> bool:
    now: datetime = clock.now(session)
    return row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now)


def _new_secret() -> str:
    text = secrets.token_urlsafe(32)
    return f"{PREFIX}{text}{_checksum(text)}"


def is_secret(secret: str) -> bool:
    """Whether a text has the format of a secret: prefix, length and checksum."""
    if not secret.isascii() or len(secret) != len(PREFIX) + _SECRET + _CHECKSUM or not secret.startswith(PREFIX):
        return False
    text = secret[len(PREFIX) : -_CHECKSUM]
    return secrets.compare_digest(_checksum(text), secret[-_CHECKSUM:])


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
