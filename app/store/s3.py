"""Objects in a bucket of an S3 server: the store of the cluster.

boto3's transfer manager sends large objects in parts. A put that fails removes its parts; the parts of a put whose
process dies are removed by `unfinished` and `discard`. Either way the next put of the object begins again.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError

from app.errors import Misconfigured
from app.settings import Settings
from app.store.bucket import GONE, Bucket, code_of, is_ended
from app.store.objects import Stored, checked_key, copy_hashed, is_key, key_of, lost, mismatch, read_chunks

YOUNG_SECONDS = 600.0
"""An object that is put again at a greater age gets a new date. A younger object is far too young to be garbage."""
INCOMING = "incoming/"
"""Prefix of uploads whose digest has not been checked yet."""
_COPYING = TransferConfig(multipart_threshold=4 * 1024**3, multipart_chunksize=1024**3)
"""S3 copies at most 5 GiB in one request."""


class S3Store:
    """Objects in a bucket, below a prefix; see `Store`.

    Args:
        bucket: The bucket.
        prefix: Empty, or ends with a slash.
        part_bytes: Size of the parts in which larger objects are sent.
        url_seconds: Validity of presigned URLs.
        scratch: Directory for temporary copies of objects, which may be too large for a /tmp in memory.
    """

    def __init__(self, bucket: Bucket, prefix: str, part_bytes: int, url_seconds: int, scratch: Path) -> None:
        self.bucket, self.prefix, self._scratch = bucket, prefix, scratch
        self.part_bytes, self.url_seconds = part_bytes, url_seconds
        self._sending = TransferConfig(multipart_threshold=part_bytes + 1, multipart_chunksize=part_bytes)

    def put(self, source: Path | Iterable[bytes], *, expected: str | None = None) -> Stored:
        """See `Store.put`."""
        with self._as_file(source) as path:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if expected is not None and digest != expected:
                raise mismatch(expected, digest)
            stored = Stored(key_of(digest), digest, path.stat().st_size)
            with self.bucket.trouble():
                self._send(path, stored)
        return stored

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        size = self.size(key)
        if size is None:
            raise lost(key)
        return self.bucket.read(self.name(key), size)

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """See `Store.local`: a copy that is removed after use."""
        with tempfile.NamedTemporaryFile(dir=self._scratch) as copy:
            with self.open(key) as stream:
                for chunk in read_chunks(stream):
                    copy.write(chunk)
            copy.flush()
            yield Path(copy.name)

    def link(self, key: str, filename: str) -> str | None:
        """See `Store.link`: a presigned URL."""
        given = {"Bucket": self.bucket.name, "Key": self.name(key)}
        given |= {"ResponseContentDisposition": f'attachment; filename="{filename}"'}
        return self.bucket.signer.generate_presigned_url("get_object", Params=given, ExpiresIn=self.url_seconds)

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        with self.bucket.trouble():
            head = self.bucket.head(self.name(key))
        return None if head is None else int(head["ContentLength"])

    def age(self, key: str) -> float | None:
        """See `Store.age`."""
        with self.bucket.trouble():
            head = self.bucket.head(self.name(key))
        return None if head is None else (_clock(head) - head["LastModified"]).total_seconds()

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self.bucket.trouble():
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=self.name(key))

    def older_than(self, seconds: float) -> Iterator[str]:
        """See `Store.older_than`. Other objects of the bucket are not listed."""
        yield from (name for name in self._listed("", seconds) if is_key(name))

    def unfinished(self, seconds: float) -> Iterator[str]:
        """See `Store.unfinished`: unchecked uploads, and unfinished multipart uploads."""
        yield from self._listed(INCOMING, seconds)
        with self.bucket.trouble():
            pages = self.bucket.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket.name, Prefix=self.prefix):
                for upload in page.get("Uploads", []):
                    if (_clock(page) - upload["Initiated"]).total_seconds() > seconds:
                        yield f"{upload['Key'].removeprefix(self.prefix)}?uploadId={upload['UploadId']}"

    def discard(self, name: str) -> None:
        """See `Store.discard`."""
        key, _, upload_id = name.partition("?uploadId=")
        client, bucket, full = self.bucket.client, self.bucket.name, self.prefix + key
        with self.bucket.trouble():
            if not upload_id:
                client.delete_object(Bucket=bucket, Key=full)
                return
            try:
                client.abort_multipart_upload(Bucket=bucket, Key=full, UploadId=upload_id)
            except ClientError as error:
                if not is_ended(error) and code_of(error) not in GONE:
                    raise

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        self.size(key_of("0" * 64))

    def close(self) -> None:
        """See `Store.close`."""
        self.bucket.close()

    def name(self, key: str) -> str:
        """Name in the bucket of the object with this key.

        Raises:
            ValueError: `key_of` makes no such key.
        """
        return self.prefix + checked_key(key)

    def publish(self, incoming: str, etag: str, stored: Stored) -> None:
        """Copy a hashed upload to the key of its digest. The copy fails if the upload has changed since it was hashed.

        Args:
            incoming: Name of the upload, with `INCOMING`.
            etag: ETag of the upload when it was hashed.
            stored: The resulting object.
        """
        with self.bucket.trouble():
            if not self._keep(stored):
                self._copy(self.prefix + incoming, self.name(stored.key), CopySourceIfMatch=etag)

    @contextmanager
    def _as_file(self, source: Path | Iterable[bytes]) -> Iterator[Path]:
        if isinstance(source, Path):
            yield source
            return
        with tempfile.NamedTemporaryFile(dir=self._scratch) as file:
            copy_hashed(source, file)  # type: ignore[arg-type]
            yield Path(file.name)

    def _send(self, path: Path, stored: Stored) -> None:
        if self._keep(stored):
            return
        # Two processes may send the same object at once: equal keys have equal bytes, so either put may win.
        with create_transfer_manager(self.bucket.client, self._sending) as manager:
            manager.upload(str(path), self.bucket.name, self.name(stored.key)).result()

    def _keep(self, stored: Stored) -> bool:
        """Whether the bucket has the object. An old object gets a new date, so that it does not count as garbage."""
        head = self.bucket.head(self.name(stored.key))
        if head is None or int(head["ContentLength"]) != stored.bytes:
            return False
        if (_clock(head) - head["LastModified"]).total_seconds() > YOUNG_SECONDS:
            self._copy(self.name(stored.key), self.name(stored.key), MetadataDirective="REPLACE")
        return True

    def _copy(self, source: str, target: str, **options: str) -> None:
        """Copy inside the server; large objects in parts."""
        where = {"Bucket": self.bucket.name, "Key": source}
        self.bucket.client.copy(where, self.bucket.name, target, ExtraArgs=options, Config=_COPYING)  # type: ignore[arg-type]

    def _listed(self, below: str, seconds: float) -> Iterator[str]:
        """Names without `self.prefix` of objects below a prefix that were last put longer ago."""
        prefix = self.prefix + below
        with self.bucket.trouble():
            pages = self.bucket.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket.name, Prefix=prefix):
                for item in page.get("Contents", []):
                    if (_clock(page) - item["LastModified"]).total_seconds() > seconds:
                        yield item["Key"].removeprefix(self.prefix)


def open_s3_store(settings: Settings, scratch: Path) -> S3Store:
    """Open the store that `s3://bucket/prefix` names and check that it can be used.

    Args:
        settings: Name and address of the bucket.
        scratch: See `S3Store`.

    Raises:
        Misconfigured: the bucket cannot be used; the message says why.
    """
    parts = urlsplit(settings.store_url)
    if parts.scheme != "s3" or not parts.netloc or parts.query:
        raise Misconfigured(
            f"PNC_STORE_URL: expected a directory, s3://bucket or s3://bucket/prefix, got {settings.store_url!r}"
        )
    try:
        bucket = Bucket(parts.netloc, settings.store_endpoint, settings.store_public_endpoint)
    except ValueError as error:
        raise Misconfigured(f"PNC_STORE_ENDPOINT: expected an address such as http://host:7480, got: {error}") from None
    try:
        bucket.check()
    except Misconfigured:
        bucket.close()
        raise
    prefix = parts.path.strip("/")
    return S3Store(bucket, f"{prefix}/" if prefix else "", settings.part_bytes, settings.url_seconds, scratch)


def _clock(answer: Any) -> datetime:
    """The server's time of its answer. The server dates objects by the same clock, so that ages are exact."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
