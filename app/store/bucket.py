"""A bucket on an S3 server: its clients, its errors, and reads that continue after a broken connection."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.response import StreamingBody
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from app.errors import Misconfigured, NoSpace, StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

GONE = ("404", "NoSuchKey", "NotFound")
"""Error codes for an object that does not exist."""
NO_UPLOAD = ("NoSuchUpload", "NoSuchKey")
"""Error codes for a multipart upload that has ended. radosgw answers the second code while the upload is ending."""
FULL = ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "StorageFull", "507")
"""Error codes of servers without free space."""
READS = 5
"""Attempts to continue a broken read before an error is raised."""
_BUFFER = 1024 * 1024
_DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden")
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another source of keys that boto3 reads"


class Bucket:
    """A bucket and its clients.

    Args:
        name: Name of the bucket.
        endpoint: Address of the server; None: Amazon's.
        public_endpoint: Address of the server for clients of the service; None: `endpoint`.
    """

    def __init__(self, name: str, endpoint: str | None = None, public_endpoint: str | None = None) -> None:
        self.name, self.endpoint = name, endpoint or "Amazon S3"
        self.client = _client(endpoint)
        self.signer = _client(public_endpoint) if public_endpoint else self.client
        """Signs URLs for `public_endpoint`."""

    def check(self) -> None:
        """Check that the bucket can be used.

        Raises:
            Misconfigured: the bucket cannot be used; the message says why.
        """
        try:
            self.client.head_bucket(Bucket=self.name)
        except NoCredentialsError:
            raise Misconfigured(f"PNC_STORE_URL: expected keys for the bucket {self.name}, got none; {_KEYS}") from None
        except ClientError as error:
            raise Misconfigured(f"PNC_STORE_URL: expected the bucket {self.name}, got {self._refusal(error)}") from None
        except (BotoCoreError, ValueError) as error:
            raise Misconfigured(
                f"PNC_STORE_ENDPOINT: expected an S3 server at {self.endpoint}, got: {error}; start it, or correct it"
            ) from None

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """Translate errors of boto3 into errors of the zoo.

        Raises:
            NoSpace: the bucket is full.
            StoreUnavailable: the server does not answer, or refuses the request.
        """
        try:
            yield
        except (BotoCoreError, Boto3Error, ClientError) as error:
            if isinstance(error, ClientError) and code_of(error) in FULL:
                detail = (
                    f"expected room in the object store at {self.endpoint}, got: {error}; free some, or raise the quota"
                )
                raise NoSpace(detail) from error
            detail = f"expected the object store at {self.endpoint} to do its work, got: {error}; try again in a moment"
            raise StoreUnavailable(detail) from error

    def head(self, key: str) -> dict[str, Any] | None:
        """Metadata of an object, as `head_object` returns it; None: the object does not exist."""
        try:
            return cast(dict[str, Any], self.client.head_object(Bucket=self.name, Key=key))
        except ClientError as error:
            if code_of(error) in GONE:
                return None
            raise

    def read(self, key: str, size: int) -> BinaryIO:
        """A seekable stream of an object of known size. It continues after a broken connection."""
        return cast(BinaryIO, io.BufferedReader(_Reader(self, key, size), _BUFFER))

    def close(self) -> None:
        """Close connections."""
        self.client.close()
        self.signer.close()

    def _refusal(self, error: ClientError) -> str:
        if code_of(error) in _DENIED:
            return f"a refusal of these keys; {_KEYS}"
        if code_of(error) in (*GONE, "NoSuchBucket"):
            return f"none at {self.endpoint}; create the bucket first"
        return f"{error} from {self.endpoint}"


class _Reader(io.RawIOBase):
    """One object. Only a seek to another position needs a new request."""

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        self._bucket, self._key, self._size = bucket, key, size
        self._position = 0
        self._body: StreamingBody | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset != self._position:
            self._drop()
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        chunk = self._read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        again = Retrying(
            retry=retry_if_exception_type(BotoCoreError),
            stop=stop_after_attempt(READS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            before_sleep=lambda _: self._drop(),
            reraise=True,
        )
        with self._bucket.trouble():
            return again(self._read_once, size)

    def _read_once(self, size: int) -> bytes:
        self._body = self._body or self._fetch()
        return self._body.read(size)

    def _fetch(self) -> StreamingBody:
        wanted = f"bytes={self._position}-"
        return self._bucket.client.get_object(Bucket=self._bucket.name, Key=self._key, Range=wanted)["Body"]

    def _drop(self) -> None:
        if self._body is not None:
            with suppress(OSError):
                self._body.close()
            self._body = None


def is_ended(error: BaseException) -> bool:
    """Whether the server answers that another process has ended the multipart upload."""
    return isinstance(error, ClientError) and code_of(error) in NO_UPLOAD


def code_of(error: ClientError) -> str:
    """The server's error code."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _client(endpoint: str | None) -> "S3Client":
    session = boto3.Session()
    config = Config(
        signature_version="s3v4",  # boto3 signs URLs by version 2 unless told otherwise, which leaves out the length
        retries={"mode": "standard", "total_max_attempts": 6},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=32,
        tcp_keepalive=True,
        # All S3 servers check the signed SHA-256 of a body. Some do not know the newer checksums of boto3.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto", "payload_signing_enabled": True},
    )
    return session.client("s3", endpoint_url=endpoint, region_name=session.region_name or "us-east-1", config=config)
