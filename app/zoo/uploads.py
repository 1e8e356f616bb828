"""Uploads: announce size and digest, send the bytes, complete.

Bytes wait in a staging directory; completing hashes them once more on their way
into the store. A broken transfer goes on at the number of bytes received.
"""

import re
from collections.abc import AsyncIterable
from pathlib import Path

import anyio
from sqlalchemy.orm import Session

from app.zoo import clock
from app.zoo.errors import Conflict, DigestMismatch, Invalid, NotFound, TooLarge
from app.zoo.ids import new_id
from app.zoo.store import Store, Stored
from app.zoo.tables import UploadRow

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_BUFFER = 1024 * 1024


def declare(session: Session, *, bytes: int, sha256: str, limit: int) -> UploadRow:
    """Announce a file.

    Args:
        session: A writing session.
        bytes: Its size.
        sha256: Its digest, 64 hexadecimal digits.
        limit: Largest size allowed.

    Raises:
        TooLarge: more than `limit` bytes.
        Invalid: the size is not positive, or the digest is not one.
    """
    if bytes > limit:
        raise TooLarge(f"expected at most {limit} bytes, got {bytes}; raise PNC_MAX_UPLOAD_BYTES or send less")
    if bytes < 1:
        raise Invalid.at("/bytes", "invalid_size", f"expected at least 1 byte, got {bytes}")
    if not _DIGEST.match(sha256.lower()):
        raise Invalid.at("/sha256", "invalid_digest", f"expected 64 hexadecimal digits, got {sha256!r:.80}")
    row = UploadRow(id=new_id("up"), bytes=bytes, digest=sha256.lower())
    session.add(row)
    session.flush()
    return row


def get(session: Session, upload_id: str) -> UploadRow:
    """One upload.

    Raises:
        NotFound: there is none with this id.
    """
    row = session.get(UploadRow, upload_id)
    if row is None:
        raise NotFound(f"expected an upload, got none with id {upload_id!r:.80}; announce it with POST /v1/uploads")
    return row


def received(staging: Path, upload: UploadRow) -> int:
    """Bytes that have arrived."""
    if upload.key is not None:
        return upload.bytes
    path = staging / upload.id
    return path.stat().st_size if path.exists() else 0


async def write(staging: Path, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
    """Write bytes that begin at `offset`; returns how many have arrived in all.

    Raises:
        Conflict: the upload is complete, or `offset` is not what has arrived.
        TooLarge: more bytes come than were announced; those up to there are kept.
    """
    if upload.key is not None:
        raise Conflict(f"{upload.id}: expected an open upload, got a complete one; announce a new one")
    have = received(staging, upload)
    if offset not in (0, have):
        raise Conflict(f"{upload.id}: expected bytes from offset {have}, got {offset}; go on at {have}")
    async with await anyio.open_file(staging / upload.id, "r+b" if offset else "wb", buffering=_BUFFER) as file:
        await file.seek(offset)
        async for chunk in chunks:
            offset += len(chunk)
            if offset > upload.bytes:
                raise TooLarge(f"{upload.id}: expected {upload.bytes} bytes as announced, got more; announce anew")
            await file.write(chunk)
    return offset


def store_content(store: Store, staging: Path, upload: UploadRow) -> Stored | None:
    """Hash what has arrived and put it into the store; call it outside any transaction.

    Returns:
        The object; None when the upload was complete before.

    Raises:
        Invalid: fewer bytes have arrived than were announced.
        DigestMismatch: they are other bytes; they are dropped, so that they can be sent again.
    """
    if upload.key is not None:
        return None
    have, path = received(staging, upload), staging / upload.id
    if have != upload.bytes:
        raise Invalid.at("/bytes", "incomplete", f"expected {upload.bytes} bytes, got {have}; send the rest first")
    try:
        return store.put(path, expected=upload.digest)
    except DigestMismatch:
        path.unlink(missing_ok=True)
        raise


def discard_staged(staging: Path, upload: UploadRow) -> None:
    """Remove the staged bytes of an upload that is complete; call it after the commit."""
    (staging / upload.id).unlink(missing_ok=True)


def complete(session: Session, upload_id: str, stored: Stored | None) -> UploadRow:
    """Mark an upload as complete; again is fine.

    Raises:
        NotFound: there is none with this id.
    """
    row = get(session, upload_id)
    if row.key is None and stored is not None:
        row.key = stored.key
        row.completed_at = clock.now(session)
    return row


def completed(session: Session, upload_id: str, pointer: str = "/upload") -> tuple[UploadRow, str]:
    """A complete upload and the key of its object.

    Raises:
        Invalid: there is none with this id, or it is not complete.
    """
    row = session.get(UploadRow, upload_id)
    if row is None or row.key is None:
        got = "none with this id" if row is None else "an open one"
        raise Invalid.at(pointer, "upload_not_complete", f"expected a complete upload, got {got}: {upload_id!r:.80}")
    return row, row.key
