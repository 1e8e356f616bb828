"""Bytes of uploads as files of a directory: they come through the API."""

from collections.abc import AsyncIterable
from pathlib import Path

import anyio

from app.errors import Conflict, DigestMismatch, NoSpace, TooLarge
from app.process import troubles
from app.store.inbox import incomplete
from app.store.objects import Store, Stored
from app.store.tables import UploadRow

_BUFFER = 1024 * 1024


class Staging:
    """See `Inbox`; completing hashes the bytes on their way into the store.

    Args:
        directory: Holds one file an upload.
        store: Takes the objects.
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
        """See `Inbox.parts`: all goes to the API."""

    async def write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        """See `Inbox.write`."""
        if upload.key is not None:
            raise Conflict(f"{upload.id}: expected an open upload, got a complete one; announce a new one")
        have = self.received(upload)
        if offset not in (0, have):
            raise Conflict(f"{upload.id}: expected bytes from offset {have}, got {offset}; go on at {have}")
        try:
            with troubles.of_directory(self._directory, "PNC_DATA_DIR"):
                return await self._write(upload, offset, chunks)
        except NoSpace:  # what has arrived is of no use while the rest has no room, and others may need its room
            self.discard(upload)
            raise

    async def _write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        async with await anyio.open_file(self._path(upload), "r+b" if offset else "wb", buffering=_BUFFER) as file:
            await file.seek(offset)
            async for chunk in chunks:
                offset += len(chunk)
                if offset > upload.bytes:
                    raise TooLarge(f"{upload.id}: expected {upload.bytes} bytes as announced, got more; announce anew")
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
