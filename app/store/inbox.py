"""Where the bytes of uploads wait until their digest is checked.

A directory gets them through the API (`app.store.staging`), a bucket straight from the
client (`app.store.transfers`). Either goes on where a broken transfer ended.
"""

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.errors import Invalid
from app.store.objects import Stored
from app.store.tables import UploadRow


@dataclass(frozen=True)
class Part:
    """Some bytes of an upload and where to send them."""

    number: int
    """Counts from 1."""
    offset: int
    """Where they begin in the file."""
    bytes: int
    """How many they are, exactly."""
    url: str
    """PUT them here, as they are."""


class Inbox(Protocol):
    """What an upload needs between its announcement and its end; nothing here is part of a transaction."""

    def received(self, upload: UploadRow) -> int:
        """Bytes that have arrived."""

    def parts(self, upload: UploadRow) -> Sequence[Part] | None:
        """Where to send what is missing; None: all of it to the API."""

    async def write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        """Take bytes that begin at `offset` from the API; returns how many have arrived in all.

        Raises:
            Conflict: the upload is complete, `offset` is not what has arrived, or they must go elsewhere.
            TooLarge: more bytes come than were announced; those up to there are kept.
            NoSpace: there is no room for them; all that has arrived of this upload is removed.
        """

    def store_content(self, upload: UploadRow) -> Stored | None:
        """Hash what has arrived and put it into the store; call it outside any transaction.

        Returns:
            The object; None when the upload was complete before.

        Raises:
            Invalid: fewer bytes have arrived than were announced.
            DigestMismatch: they are other bytes; they are dropped, so that they can be sent again.
        """

    def discard(self, upload: UploadRow) -> None:
        """Remove the bytes of an upload that is complete; call it after the commit."""

    def forget(self, upload: UploadRow) -> None:
        """Remove what has arrived of an upload that was deleted; call it after the commit."""


def incomplete(upload: UploadRow, received: int) -> Invalid:
    """The error that bytes are missing."""
    detail = f"expected {upload.bytes} bytes, got {received}; send the rest first"
    return Invalid.at("/bytes", "incomplete", detail)
