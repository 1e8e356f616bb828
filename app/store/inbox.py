"""Bytes of uploads that wait until their digest is checked.

`DirectoryInbox` receives the bytes through the API. `app.store.s3_inbox` lets clients send them straight to a bucket.
Both continue a broken transfer where it ended.
"""

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from app.errors import Conflict, DigestMismatch, Invalid, NoSpace, TooLarge
from app.process import troubles
from app.store.objects import Store, Stored
from app.store.tables import UploadRow

_BUFFER = 1024 * 1024


@dataclass(frozen=True)
class Part:
    """One part of an upload and the URL that receives it."""

    number: int
    """From 1."""
    offset: int
    """Position of the part's first byte in the file."""
    bytes: int
    """Exact length of the part."""
    url: str
    """Address for a PUT of the part's bytes."""


class Inbox(Protocol):
    """Receives the bytes of uploads between announcement and completion. No method is part of a transaction."""

    def received(self, upload: UploadRow) -> int:
        """Number of bytes that have arrived."""

    def parts(self, upload: UploadRow) -> Sequence[Part] | None:
        """Missing parts with their URLs; None: the API receives the bytes."""

    async def write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        """Write bytes that the API receives, from `offset` on; returns the number of bytes that have arrived in all.

        Raises:
            Conflict: the upload is complete, `offset` is not the number of arrived bytes, or the bytes belong to the
                URLs of `parts`.
            TooLarge: more bytes come than were announced. The announced number is kept.
            NoSpace: the disk is full. All arrived bytes of this upload are removed.
        """

    def store_content(self, upload: UploadRow) -> Stored | None:
        """Hash the arrived bytes and put them into the store. Call it outside any transaction.

        Returns:
            The object; None: the upload was complete before.

        Raises:
            Invalid: fewer bytes have arrived than were announced.
            DigestMismatch: the bytes have another digest. They are removed, so that the client can send them again.
        """

    def discard(self, upload: UploadRow) -> None:
        """Remove the bytes of a complete upload. Call it after the commit."""

    def forget(self, upload: UploadRow) -> None:
        """Remove all bytes and parts of a deleted upload. Call it after the commit."""


class DirectoryInbox:
    """Keeps the bytes of each upload in one file of a directory; see `Inbox`.

    Args:
        directory: The directory.
        store: Receives the objects.
    """

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory, self._store = directory, store

    def received(self, upload: UploadRow) -> int:
        """See `Inbox.received`."""
        if upload.key is not None:
            return upload.bytes
        path = self._path(upload)
        return path.stat().st_size if path.exists() else 0

    def parts(self, upload: UploadRow) -> None:
        """See `Inbox.parts`: always None."""

    async def write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        """See `Inbox.write`."""
        if upload.key is not None:
            raise Conflict(f"{upload.id}: expected an open upload, got a complete one; announce a new one")
        have = self.received(upload)
        if offset not in (0, have):
            raise Conflict(f"{upload.id}: expected bytes from offset {have}, got {offset}; continue at {have}")
        try:
            with troubles.of_directory(self._directory, "PNC_DATA_DIR"):
                return await self._write(upload, offset, chunks)
        except NoSpace:  # the arrived bytes are useless without the rest, and other uploads need the room
            self.discard(upload)
            raise

    async def _write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        async with await anyio.open_file(self._path(upload), "r+b" if offset else "wb", buffering=_BUFFER) as file:
            await file.seek(offset)
            async for chunk in chunks:
                offset += len(chunk)
                if offset > upload.bytes:
                    raise TooLarge(
                        f"{upload.id}: expected {upload.bytes} bytes as announced, got more; announce a new upload"
                    )
                await file.write(chunk)
        return offset

    def store_content(self, upload: UploadRow) -> Stored | None:
        """See `Inbox.store_content`."""
        if upload.key is not None:
            return None
        have, path = self.received(upload), self._path(upload)
        if have != upload.bytes:
            raise incomplete(upload, have)
        try:
            return self._store.put(path, expected=upload.digest)
        except DigestMismatch:
            path.unlink(missing_ok=True)
            raise

    def discard(self, upload: UploadRow) -> None:
        """See `Inbox.discard`."""
        self._path(upload).unlink(missing_ok=True)

    def forget(self, upload: UploadRow) -> None:
        """See `Inbox.forget`."""
        self.discard(upload)

    def _path(self, upload: UploadRow) -> Path:
        return self._directory / upload.id


def incomplete(upload: UploadRow, received: int) -> Invalid:
    """The error for an upload of which bytes are missing."""
    detail = f"expected {upload.bytes} bytes, got {received}; send the rest first"
    return Invalid.at("/bytes", "incomplete", detail)
