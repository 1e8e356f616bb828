"""Uploads: announce size and digest, send the bytes to an inbox (`app.store.inbox`), complete."""

import re

from sqlalchemy.orm import Session

from app.access import workspaces
from app.db import clock
from app.db.ids import new_id
from app.errors import Conflict, Invalid, NotFound, TooLarge
from app.store.objects import Store, Stored
from app.store.tables import UploadRow

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def draft(*, bytes: int, sha256: str, limit: int) -> UploadRow:
    """An announcement that is not in the database yet.

    Args:
        bytes: Size of the file.
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
    return UploadRow(id=new_id("up"), bytes=bytes, digest=sha256.lower())


def declare(session: Session, upload: UploadRow) -> UploadRow:
    """Announce a file: from now on its bytes can come.

    Raises:
        QuotaExceeded: the workspace may not keep so many more.
    """
    workspaces.check_room(session, upload.bytes)
    session.add(upload)
    session.flush()
    return upload


def get(session: Session, upload_id: str) -> UploadRow:
    """One upload.

    Raises:
        NotFound: there is none with this id.
    """
    row = session.get(UploadRow, upload_id)
    if row is None:
        raise _unknown(upload_id)
    return row


def complete(session: Session, upload_id: str, stored: Stored | None) -> UploadRow:
    """Mark an upload as complete; again is fine.

    Raises:
        NotFound: there is none with this id.
    """
    row = session.get(UploadRow, upload_id, with_for_update=True)  # nobody deletes it meanwhile
    if row is None:
        raise _unknown(upload_id)
    if row.key is None and stored is not None:
        row.key = stored.key
        row.completed_at = clock.now(session)
    return row


def delete(session: Session, upload_id: str) -> UploadRow:
    """Forget an upload, complete or not; what was made of it keeps its object. Its bytes are the caller's to remove.

    Raises:
        NotFound: there is none with this id.
    """
    row = session.get(UploadRow, upload_id, with_for_update=True)
    if row is None:
        raise _unknown(upload_id)
    session.delete(row)
    session.flush()
    return row


def check_kept(session: Session, store: Store, upload: UploadRow) -> None:
    """See that the object of an upload just marked as complete was not removed as garbage a moment before.

    Raises:
        Conflict: it was.
    """
    session.flush()  # from here on the row holds its object
    if upload.key is not None and store.size(upload.key) is None:
        raise Conflict(
            f"{upload.id}: expected its object to be kept, got it removed as garbage meanwhile; send it again"
        )


def completed(
    session: Session, upload_id: str, pointer: str = "/upload", *, keep: bool = False
) -> tuple[UploadRow, str]:
    """A complete upload and the key of its object.

    Args:
        session: A writing session, if the upload is to be kept.
        upload_id: The upload.
        pointer: Where the request names it.
        keep: Nobody removes it until the transaction ends, in which another row comes to name its object; from then
            on it counts as used.

    Raises:
        Invalid: there is none with this id, or it is not complete.
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
