"""Uploads: announce size and digest, send the bytes to an inbox (`app.zoo.inbox`), complete."""

import re

from sqlalchemy.orm import Session

from app.zoo import clock
from app.zoo.errors import Invalid, NotFound, TooLarge
from app.zoo.ids import new_id
from app.zoo.store import Stored
from app.zoo.tables import UploadRow

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


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
