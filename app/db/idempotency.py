"""Stored answers for repeated requests, written in the transaction of the first request."""

from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.db import clock, sealing
from app.db.isolation import workspace_of
from app.db.tables import IdempotencyRow
from app.errors import Invalid, KeyReused, Problem

KEPT = timedelta(hours=24)
MAX_KEY = 128


def recall(session: Session, key: str, request_digest: str) -> IdempotencyRow | None:
    """The answer stored under a key within the last 24 hours; None: no answer is stored.

    Raises:
        Invalid: the key is malformed.
        KeyReused: the key was used for another request.
    """
    if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        detail = f"expected 1 to {MAX_KEY} printable ASCII characters, got {key!r:.80}"
        raise Invalid.at("header:Idempotency-Key", "invalid_idempotency_key", detail)
    row = session.get(IdempotencyRow, (workspace_of(session), key))
    if row is None:
        return None
    if row.created_at < clock.now(session) - KEPT:
        session.delete(row)
        session.flush()
        return None
    if row.request_digest != request_digest:
        detail = f"expected the first request with key {key!r}, got another request; use a new key for it"
        raise KeyReused([Problem("header:Idempotency-Key", KeyReused.code, detail)])
    return row


def body_of(session: Session, row: IdempotencyRow) -> str:
    """The body of a stored answer.

    Raises:
        Misconfigured: the body is encrypted, and no key decrypts it.
    """
    return sealing.of(session).open(row.body) if sealing.is_sealed(row.body) else row.body


def remember(
    session: Session,
    key: str,
    request_digest: str,
    *,
    status: int,
    location: str | None,
    body: str,
    is_secret: bool = False,
) -> None:
    """Store an answer for 24 hours. An answer with a secret is encrypted."""
    if is_secret:
        body = sealing.of(session).seal(body)
    session.add(IdempotencyRow(key=key, request_digest=request_digest, status=status, location=location, body=body))


def sweep_keys(session: Session) -> None:
    """Delete answers that are older than 24 hours."""
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < clock.now(session) - KEPT))
