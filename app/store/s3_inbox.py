"""Bytes of uploads straight from the client to the bucket, by presigned URLs; they never pass the API.

Every upload is one of parts, a small one of a single part. Nobody but us can make an object of
the parts, and once we have, their URLs are worth nothing: what is hashed is what is published.
"""

import hashlib
from collections.abc import AsyncIterable, Sequence
from typing import Any

from botocore.exceptions import ClientError

from app.errors import Conflict
from app.store.bucket import is_ended
from app.store.inbox import Part, incomplete
from app.store.multipart import Multipart
from app.store.objects import Stored, key_of, mismatch, read_chunks
from app.store.s3 import INCOMING, S3Store
from app.store.tables import UploadRow


class Transfers:
    """See `Inbox`.

    Args:
        store: The bucket.
    """

    def __init__(self, store: S3Store) -> None:
        self._store, self._bucket = store, store.bucket

    def received(self, upload: UploadRow) -> int:
        """See `Inbox.received`."""
        if upload.key is not None:
            return upload.bytes
        return upload.bytes - sum(part.bytes for part in self.parts(upload))

    def parts(self, upload: UploadRow) -> Sequence[Part]:
        """See `Inbox.parts`; the URLs are made anew each time and live a quarter of an hour at most."""
        with self._bucket.trouble():
            try:
                return self._missing(upload)
            except ClientError as error:  # somebody completes it just now
                if not is_ended(error) or self._head(upload) is None:
                    raise
                return []

    def _missing(self, upload: UploadRow) -> Sequence[Part]:
        if upload.key is not None or self._head(upload) is not None:
            return []
        parts = self._multipart(upload)
        upload_id = parts.find() or parts.begin()
        there = parts.arrived(upload_id)
        sign, seconds = self._bucket.signer, self._store.url_seconds
        return [
            Part(span.number, span.offset, span.bytes, parts.url(sign, upload_id, span, seconds))
            for span in parts.spans
            if span.number not in there
        ]

    async def write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        """See `Inbox.write`: never here."""
        raise Conflict(f"{upload.id}: expected bytes at the URLs of its parts, got some here; see GET /v1/uploads/<id>")

    def store_content(self, upload: UploadRow) -> Stored | None:
        """See `Inbox.store_content`."""
        if upload.key is not None:
            return None
        with self._bucket.trouble():
            self._assemble(upload)
        etag, digest = self._hash(upload)
        if digest != upload.digest:
            self._store.discard(_name(upload))
            raise mismatch(upload.digest, digest)
        stored = Stored(key_of(digest), digest, upload.bytes)
        self._store.publish(_name(upload), etag, stored)
        return stored

    def discard(self, upload: UploadRow) -> None:
        """See `Inbox.discard`."""
        self._store.discard(_name(upload))

    def forget(self, upload: UploadRow) -> None:
        """See `Inbox.forget`; parts that were not put together wait under an id of their own."""
        with self._bucket.trouble():
            upload_id = self._multipart(upload).find()
        if upload_id is not None:
            self._store.discard(f"{_name(upload)}?uploadId={upload_id}")
        self.discard(upload)

    def _assemble(self, upload: UploadRow) -> None:
        """Make an object of the parts, unless an earlier attempt has, or another one does meanwhile.

        Raises:
            Invalid: some have not arrived.
        """
        try:
            self._finish(upload)
        except ClientError as error:
            if not is_ended(error) or self._head(upload) is None:
                raise

    def _finish(self, upload: UploadRow) -> None:
        parts = self._multipart(upload)
        upload_id = None if self._head(upload) is not None else parts.find()
        if upload_id is None:
            if self._head(upload) is None:
                raise incomplete(upload, 0)
            return
        have = sum(part.bytes for part in parts.arrived(upload_id).values())
        if have != upload.bytes:
            raise incomplete(upload, have)
        parts.finish(upload_id)

    def _hash(self, upload: UploadRow) -> tuple[str, str]:
        """ETag and SHA-256 of what has arrived."""
        with self._bucket.trouble():
            head = self._head(upload)
        if head is None:
            raise incomplete(upload, 0)
        hasher = hashlib.sha256()
        with self._bucket.read(self._store.prefix + _name(upload), int(head["ContentLength"])) as stream:
            for chunk in read_chunks(stream):
                hasher.update(chunk)
        return str(head["ETag"]).strip('"'), hasher.hexdigest()

    def _head(self, upload: UploadRow) -> dict[str, Any] | None:
        return self._bucket.head(self._store.prefix + _name(upload))

    def _multipart(self, upload: UploadRow) -> Multipart:
        return self._store.multipart(_name(upload), upload.bytes)


def _name(upload: UploadRow) -> str:
    return INCOMING + upload.id
