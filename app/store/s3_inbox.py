"""Uploads that clients send straight to a bucket, by presigned URLs; the bytes never pass through the API.

Every upload is a multipart upload of S3, and a small one has a single part. Only the service can make an object of the
parts. After that the URLs of the parts are useless, so that nobody changes the bytes between hashing and publishing.
S3 finds an unfinished multipart upload by its key, so that the service need not store the id.
"""

import hashlib
from collections.abc import AsyncIterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from app.errors import Conflict
from app.store.bucket import is_ended
from app.store.inbox import Part, incomplete
from app.store.objects import Stored, key_of, mismatch, read_chunks
from app.store.s3 import INCOMING, S3Store
from app.store.tables import UploadRow

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_PARTS = 10_000
"""Largest number of parts that S3 takes."""


class S3Inbox:
    """Receives uploads in a bucket; see `Inbox`.

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
        """See `Inbox.parts`. Each call makes new URLs, which are valid for at most a quarter of an hour."""
        with self._bucket.trouble():
            try:
                return self._missing(upload)
            except ClientError as error:  # another request completes the upload at this moment
                if not is_ended(error) or self._head(upload) is None:
                    raise
                return []

    def _missing(self, upload: UploadRow) -> Sequence[Part]:
        if upload.key is not None or self._head(upload) is not None:
            return []
        parts = self._multipart(upload)
        upload_id = parts.find() or parts.begin()
        arrived = parts.arrived(upload_id)
        signer, seconds = self._bucket.signer, self._store.url_seconds
        return [
            Part(span.number, span.offset, span.bytes, parts.url(signer, upload_id, span, seconds))
            for span in parts.spans
            if span.number not in arrived
        ]

    async def write(self, upload: UploadRow, offset: int, chunks: AsyncIterable[bytes]) -> int:
        """See `Inbox.write`: always raises `Conflict`."""
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
        """See `Inbox.forget`. Parts of an unfinished multipart upload are removed by the id of that upload."""
        with self._bucket.trouble():
            upload_id = self._multipart(upload).find()
        if upload_id is not None:
            self._store.discard(f"{_name(upload)}?uploadId={upload_id}")
        self.discard(upload)

    def _assemble(self, upload: UploadRow) -> None:
        """Make an object of the parts, unless an earlier or a concurrent request has done so.

        Raises:
            Invalid: parts are missing.
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
        """ETag and SHA-256 of the arrived bytes."""
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

    def _multipart(self, upload: UploadRow) -> "Multipart":
        return Multipart(self._store, _name(upload), upload.bytes)


def _name(upload: UploadRow) -> str:
    return INCOMING + upload.id


@dataclass(frozen=True)
class Span:
    """Position of one part in the file."""

    number: int
    """From 1."""
    offset: int
    bytes: int


@dataclass(frozen=True)
class Arrived:
    """A part that the bucket has received."""

    bytes: int
    etag: str


class Multipart:
    """The multipart upload of one object.

    Args:
        store: The bucket.
        name: Name of the object below `INCOMING`, with `INCOMING`.
        size: Bytes of the object.
    """

    def __init__(self, store: S3Store, name: str, size: int) -> None:
        self._client = store.bucket.client
        self._bucket, self._key = store.bucket.name, store.prefix + name
        self.spans = list(_spans(size, store.part_bytes))

    def find(self) -> str | None:
        """Id of the newest unfinished multipart upload of this key; None: the key has none."""
        found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._key).get("Uploads", [])
        own = [upload for upload in found if upload.get("Key") == self._key]
        return max(own, key=lambda upload: upload["Initiated"])["UploadId"] if own else None

    def begin(self) -> str:
        """Begin a multipart upload; returns its id."""
        return self._client.create_multipart_upload(Bucket=self._bucket, Key=self._key)["UploadId"]

    def arrived(self, upload_id: str) -> dict[int, Arrived]:
        """Arrived parts by number. A part of an unexpected size counts as missing."""
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=self._key, UploadId=upload_id
        )
        parts = {
            p["PartNumber"]: Arrived(p["Size"], p["ETag"].strip('"')) for page in pages for p in page.get("Parts", [])
        }
        planned = {span.number: span.bytes for span in self.spans}
        return {number: part for number, part in parts.items() if planned.get(number) == part.bytes}

    def finish(self, upload_id: str) -> None:
        """Make an object of the arrived parts. After that nobody can send a part."""
        parts = [{"PartNumber": n, "ETag": part.etag} for n, part in sorted(self.arrived(upload_id).items())]
        self._client.complete_multipart_upload(
            Bucket=self._bucket,
            Key=self._key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
        )

    def url(self, signer: "S3Client", upload_id: str, span: Span, seconds: int) -> str:
        """A URL for a PUT of exactly this part's number of bytes.

        The length is a signed header: the server refuses a body of another length.

        Args:
            signer: Client for the server's address that clients know.
            upload_id: Id of this multipart upload.
            span: The part.
            seconds: Validity of the URL.
        """
        given = {"Bucket": self._bucket, "Key": self._key, "UploadId": upload_id}
        given |= {"PartNumber": span.number, "ContentLength": span.bytes}  # type: ignore[dict-item]
        return signer.generate_presigned_url("upload_part", Params=given, ExpiresIn=seconds)


def _spans(size: int, part_bytes: int) -> Iterator[Span]:
    step = max(part_bytes, -(-size // MOST_PARTS))
    for number, offset in enumerate(range(0, size, step), 1):
        yield Span(number, offset, min(step, size - offset))
