"""Keys of the API: made once, shown once, kept as a digest, revoked at once.

A secret is 256 random bits. Guessing one is hopeless, so that its plain SHA-256 is as good as a slow hash, which is
for passwords that people think of; and it can be looked up by an index. The checksum behind it tells a typing error
from a revoked key without asking the database, and lets scanners find keys that were published by mistake.
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
"""What a browser that is signed in sends."""
PREFIX = "pnc_"
HINT = 10
"""Characters of a secret that may be shown again."""
SIGNED_IN = timedelta(hours=12)
"""How long a browser stays signed in."""
_CHECKSUM = 8
_SECRET = 43


@dataclass(frozen=True)
class Caller:
    """Who asks for something."""

    workspace: str
    scopes: frozenset[str]
    key_id: str | None = None
    """None: there are no keys, and whoever reaches the service may do everything."""
    name: str = ""
    requests_per_minute: int | None = None

    def check(self, session: Session) -> None:
        """Check that the caller's key is still valid.

        Raises:
            Unauthenticated: it has been revoked, or has expired.
        """
        if self.key_id is not None:
            check_in_force(session, self.key_id)

    def may(self, scope: str) -> bool:
        """Whether something that needs this scope is allowed; `admin` can give itself all others."""
        return scope in self.scopes or "admin" in self.scopes


ANYBODY = Caller(DEFAULT, frozenset(SCOPES))
"""Who asks while there are no keys."""


def create(
    session: Session,
    *,
    name: str,
    scopes: Collection[str],
    lifetime: timedelta | None = None,
    parent: KeyRow | None = None,
) -> tuple[KeyRow, str]:
    """A new key of the session's workspace, and its secret, which nobody can ever get again.

    Args:
        session: A writing session of the workspace.
        name: For people.
        scopes: What it may do.
        lifetime: After which it ends by itself.
        parent: Key that it ends with.

    Raises:
        Invalid: the name is not one, or the scopes are not.
    """
    check_name(name)
    odd = [scope for scope in scopes if scope not in SCOPES]
    if odd or not scopes:
        got = f"got {odd[0]!r:.40}" if odd else "got none"
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
    """Who has this secret.

    Args:
        session: A session that belongs to no workspace.
        secret: What somebody says is a key.

    Raises:
        Unauthenticated: it is none, or one that has ended.
    """
    row = (
        session.scalars(select(KeyRow).where(KeyRow.digest == _digest(secret))).one_or_none()
        if is_secret(secret)
        else None
    )
    if row is None or _ended(session, row):
        raise Unauthenticated("expected a key that is in force, got another; sign in again, or ask for a new key")
    limits = session.get(WorkspaceRow, row.workspace)
    return Caller(
        row.workspace, frozenset(row.scopes), row.id, row.name, limits.requests_per_minute if limits else None
    )


def check_in_force(session: Session, key_id: str) -> None:
    """See that a key that was in force when a request or a page began still is.

    Raises:
        Unauthenticated: it has been revoked, or has expired.
    """
    row = session.get(KeyRow, key_id)
    if row is None or _ended(session, row):
        raise Unauthenticated("expected a key that is in force, got one that has ended meanwhile; sign in again")


def in_force(session: Session, key_ids: Collection[str]) -> set[str]:
    """Those of some keys that have not ended, in one query.

    Args:
        session: A session that belongs to no workspace.
        key_ids: Their ids.
    """
    if not key_ids:
        return set()
    now = clock.now(session)
    rows = session.execute(select(KeyRow.id, KeyRow.revoked_at, KeyRow.expires_at).where(KeyRow.id.in_(key_ids)))
    return {key for key, revoked, expires in rows if revoked is None and (expires is None or expires > now)}


def sign_in(session: Session, caller: Caller) -> tuple[KeyRow, str]:
    """A key for a browser, which ends with the one that somebody signed in with, and soon by itself.

    Raises:
        Unauthenticated: the caller's key is a browser's already.
    """
    parent = session.get_one(KeyRow, caller.key_id)
    if parent.parent_id is not None:
        raise Unauthenticated("expected a key of your own, got a browser's; sign in with the key itself")
    row, secret = create(session, name=parent.name, scopes=parent.scopes, lifetime=SIGNED_IN, parent=parent)
    if row.expires_at is not None and parent.expires_at is not None:
        row.expires_at = min(row.expires_at, parent.expires_at)
    return row, secret


def list_keys(session: Session, window: Window) -> Page[KeyRow]:
    """Keys, newest first, those that have ended and those of browsers included."""
    return page(session, select(KeyRow), KeyRow.id, str, window)


def revoke(session: Session, key_id: str) -> KeyRow:
    """End a key, and with it all browsers that signed in with it. Again is fine.

    Raises:
        NotFound: there is none with this id.
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
    """Whether a text has the form of a key, checksum included."""
    if not secret.isascii() or len(secret) != len(PREFIX) + _SECRET + _CHECKSUM or not secret.startswith(PREFIX):
        return False
    text = secret[len(PREFIX) : -_CHECKSUM]
    return secrets.compare_digest(_checksum(text), secret[-_CHECKSUM:])


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
