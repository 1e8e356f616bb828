"""Uploads: announce size and digest, send the bytes to an inbox (`app.store.inbox`), complete."""

import hashlib
import re
from pathlib import Path

from sqlalchemy.orm import Session

from app.access import workspaces
from app.db import clock
from app.db.ids import new_id
from app.errors import Conflict, Invalid, NotFound, TooLarge
from app.store.objects import Store, Stored
from app.store.tables import UploadRow

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def draft(*, bytes: int, sha256: str, limit: int) -> UploadRow:
    """Check an announcement; returns a row that is not in the database yet.

    Args:
        bytes: Size of the file.
        sha256: Digest of the file, 64 hexadecimal digits.
        limit: Largest allowed size.

    Raises:
        TooLarge: more than `limit` bytes.
        Invalid: the size is not positive, or the digest is malformed.
    """
    if bytes > limit:
        raise TooLarge(f"expected at most {limit} bytes, got {bytes}; raise PNC_MAX_UPLOAD_BYTES or send less")
    if bytes < 1:
        raise Invalid.at("/bytes", "invalid_size", f"expected at least 1 byte, got {bytes}")
    if not _DIGEST.match(sha256.lower()):
        raise Invalid.at("/sha256", "invalid_digest", f"expected 64 hexadecimal digits, got {sha256!r:.80}")
    return UploadRow(id=new_id("up"), bytes=bytes, digest=sha256.lower())


def draft_of(file: Path, limit: int) -> UploadRow:
    """`draft` for a file of this machine.

    Raises:
        TooLarge: more than `limit` bytes.
        Invalid: the file is empty.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return draft(bytes=file.stat().st_size, sha256=digest, limit=limit)


def declare(session: Session, upload: UploadRow) -> UploadRow:
    """Announce a file, so that a client can send its bytes.

    Raises:
        QuotaExceeded: the quota of the workspace is too small.
    """
    workspaces.check_room(session, upload.bytes)
    session.add(upload)
    session.flush()
    return upload


def get(session: Session, upload_id: str) -> UploadRow:
    """One upload.

    Raises:
        NotFound: no upload has this id.
    """
    row = session.get(UploadRow, upload_id)
    if row is None:
        raise _unknown(upload_id)
    return row


def complete(session: Session, upload_id: str, stored: Stored | None) -> UploadRow:
    """Mark an upload as complete. Idempotent.

    Raises:
        NotFound: no upload has this id.
    """
    row = session.get(UploadRow, upload_id, with_for_update=True)  # prevents a concurrent delete
    if row is None:
        raise _unknown(upload_id)
    if row.key is None and stored is not None:
        row.key = stored.key
        row.completed_at = clock.now(session)
    return row


def delete(session: Session, upload_id: str) -> UploadRow:
    """Delete the row of an upload. The caller removes the bytes that no version or dataset uses.

    Raises:
        NotFound: no upload has this id.
    """
    row = session.get(UploadRow, upload_id, with_for_update=True)
    if row is None:
        raise _unknown(upload_id)
    session.delete(row)
    session.flush()
    return row


def check_kept(session: Session, store: Store, upload: UploadRow) -> None:
    """Check that the object of a newly complete upload was not removed as garbage just before.

    Raises:
        Conflict: the object was removed.
    """
    session.flush()  # the row locks its object here
    if upload.key is not None and store.size(upload.key) is None:
        raise Conflict(
            f"{upload.id}: expected its object to exist, got an object that was removed as garbage; send it again"
        )


def completed(
    session: Session, upload_id: str, pointer: str = "/upload", *, keep: bool = False
) -> tuple[UploadRow, str]:
    """A complete upload and the key of its object.

    Args:
        session: A session; a writing session with `keep`.
        upload_id: Id of the upload.
        pointer: Pointer to the id in the request, for errors.
        keep: Lock the upload until the transaction ends and mark it as used, because another row will refer to its
            object.

    Raises:
        Invalid: no upload has this id, or the upload is not complete.
    """
    row = session.get(UploadRow, upload_id, with_for_update={"key_share": True} if keep else None)
    if row is None or row.key is None:
        got = "none with this id" if row is None else "an open one"
        raise Invalid.at(pointer, "upload_not_complete", f"expected a complete upload, got {got}: {upload_id!r:.80}")
    if keep:
        row.used_at = row.used_at or clock.now(session)
    return row, row.key


def _unknown(upload_id: str) -> NotFound:
    return NotFound(f"expected an upload, got none with id {upload_id!r:.80}; announce it with POST /v1/uploads")
