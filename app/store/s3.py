"""Objects in a bucket of an S3 server: the store of the cluster."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from tenacity import retry, retry_if_exception, stop_after_attempt

from app.errors import Misconfigured
from app.settings import Settings
from app.store.bucket import GONE, TAKEN, Bucket, code_of, is_ended
from app.store.multipart import Multipart
from app.store.objects import Stored, checked_key, copy_hashed, is_key, key_of, lost, mismatch, read_chunks

YOUNG_SECONDS = 600.0
"""An object that was put again after this time is made young; before, it is far from being garbage."""
INCOMING = "incoming/"
"""Where uploads of clients wait for their digest to be checked."""
_TRIES = 3
_COPYING = TransferConfig(multipart_threshold=4 * 1024**3, multipart_chunksize=1024**3)
"""A server copies up to 5 GiB in one go."""


class S3Store:
    """Objects in a bucket, below a prefix.

    Args:
        bucket: The bucket.
        prefix: Empty, or ends with a slash.
        part_bytes: Larger objects are sent in parts of this size.
        url_seconds: How long a presigned URL lets a client in.
        scratch: Directory for copies of objects while somebody reads them; too large for a /tmp in memory.
    """

    def __init__(self, bucket: Bucket, prefix: str, part_bytes: int, url_seconds: int, scratch: Path) -> None:
        self.bucket, self.prefix, self._scratch = bucket, prefix, scratch
        self.part_bytes, self.url_seconds = part_bytes, url_seconds

    def put(self, source: Path | Iterable[bytes], *, expected: str | None = None) -> Stored:
        """See `Store.put`; a large object that broke off goes on with its next part."""
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
        """See `Store.local`: a copy that is removed afterwards."""
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
        """See `Store.older_than`; what else lies in the bucket is nobody's business."""
        yield from (name for name in self._listed("", seconds) if is_key(name))

    def unfinished(self, seconds: float) -> Iterator[str]:
        """See `Store.unfinished`: uploads that wait to be checked, and parts of which no object was made."""
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
        """What the bucket calls the object of this key.

        Raises:
            ValueError: not a key that `key_of` made.
        """
        return self.prefix + checked_key(key)

    def multipart(self, key: str, size: int) -> Multipart:
        """The upload in parts of `key`, a key or a name below `INCOMING`."""
        return Multipart(self.bucket.client, self.bucket.name, self.prefix + key, size, self.part_bytes)

    def publish(self, incoming: str, etag: str, stored: Stored) -> None:
        """Copy an object whose bytes were hashed to its key, unless it has changed since.

        Args:
            incoming: Its name below `INCOMING`.
            etag: What it had when it was hashed.
            stored: What it becomes.
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
        if stored.bytes > self.part_bytes:
            self._send_parts(path, stored)
            return
        with path.open("rb") as file:
            try:
                self.bucket.client.put_object(
                    Bucket=self.bucket.name, Key=self.name(stored.key), Body=file, IfNoneMatch="*"
                )
            except ClientError as error:
                if code_of(error) not in TAKEN:  # same key, same bytes: who was first does not matter
                    raise

    @retry(retry=retry_if_exception(is_ended), stop=stop_after_attempt(_TRIES), reraise=True)
    def _send_parts(self, path: Path, stored: Stored) -> None:
        try:
            self._send_missing(self.multipart(stored.key, stored.bytes), path)
        except ClientError as error:
            # Another process has sent the same bytes under the same upload, and ended it.
            if not is_ended(error) or self.bucket.head(self.name(stored.key)) is None:
                raise

    def _send_missing(self, parts: Multipart, path: Path) -> None:
        upload_id = parts.find() or parts.begin()
        there = parts.arrived(upload_id)
        with path.open("rb") as file:
            for span in parts.spans:
                file.seek(span.offset)
                content = file.read(span.bytes)
                sent = there.get(span.number)
                if sent is None or sent.etag != hashlib.md5(content, usedforsecurity=False).hexdigest():
                    parts.send(upload_id, span, content)
        parts.finish(upload_id)

    def _keep(self, stored: Stored) -> bool:
        """Whether the object is there already; then it is made young, so that it does not count as garbage."""
        head = self.bucket.head(self.name(stored.key))
        if head is None or int(head["ContentLength"]) != stored.bytes:
            return False
        if (_clock(head) - head["LastModified"]).total_seconds() > YOUNG_SECONDS:
            self._copy(self.name(stored.key), self.name(stored.key), MetadataDirective="REPLACE")
        return True

    def _copy(self, source: str, target: str, **options: str) -> None:
        """Inside the server; in parts where the server wants it so."""
        where = {"Bucket": self.bucket.name, "Key": source}
        self.bucket.client.copy(where, self.bucket.name, target, ExtraArgs=options, Config=_COPYING)  # type: ignore[arg-type]

    def _listed(self, below: str, seconds: float) -> Iterator[str]:
        """Names, without our prefix, of all that was put longer ago."""
        prefix = self.prefix + below
        with self.bucket.trouble():
            pages = self.bucket.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket.name, Prefix=prefix):
                for item in page.get("Contents", []):
                    if (_clock(page) - item["LastModified"]).total_seconds() > seconds:
                        yield item["Key"].removeprefix(self.prefix)


def open_s3_store(settings: Settings, scratch: Path) -> S3Store:
    """The store that `s3://bucket/prefix` names, after a look whether it can be used.

    Args:
        settings: Where it is.
        scratch: See `S3Store`.

    Raises:
        Misconfigured: it cannot; the message says why.
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
    """The server's time of day: ages are measured by the clock that dated the objects."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
