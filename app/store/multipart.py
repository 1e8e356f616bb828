"""Large objects in parts: what has arrived stays when a transfer breaks, and S3 remembers it for us.

An upload of parts is found by its key, so that nobody has to keep its id.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_PARTS = 10_000
"""S3 takes no more."""


@dataclass(frozen=True)
class Span:
    """The bytes of one part."""

    number: int
    """Counts from 1."""
    offset: int
    bytes: int


@dataclass(frozen=True)
class Arrived:
    """A part that is there."""

    bytes: int
    etag: str
    """MD5 of its bytes, unless the bucket is encrypted with keys of its own."""


class Multipart:
    """The upload of one object in parts.

    Args:
        client: Of the S3 server.
        bucket: Its bucket.
        key: Of the object, as the bucket knows it.
        size: Bytes of the object.
        part_bytes: Bytes of each part but the last.
    """

    def __init__(self, client: "S3Client", bucket: str, key: str, size: int, part_bytes: int) -> None:
        self._client, self.bucket, self.key = client, bucket, key
        self.spans = list(_spans(size, part_bytes))

    def find(self) -> str | None:
        """Id of the newest upload under this key that is not finished."""
        found = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.key).get("Uploads", [])
        own = [upload for upload in found if upload.get("Key") == self.key]
        return max(own, key=lambda upload: upload["Initiated"])["UploadId"] if own else None

    def begin(self) -> str:
        """Begin one; returns its id."""
        return self._client.create_multipart_upload(Bucket=self.bucket, Key=self.key)["UploadId"]

    def arrived(self, upload_id: str) -> dict[int, Arrived]:
        """The parts that are there, by their numbers; one of another size than planned counts as missing."""
        pages = self._client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=self.key, UploadId=upload_id)
        parts = {
            p["PartNumber"]: Arrived(p["Size"], p["ETag"].strip('"')) for page in pages for p in page.get("Parts", [])
        }
        planned = {span.number: span.bytes for span in self.spans}
        return {number: part for number, part in parts.items() if planned.get(number) == part.bytes}

    def send(self, upload_id: str, span: Span, content: bytes) -> None:
        """Send one part."""
        self._client.upload_part(
            Bucket=self.bucket, Key=self.key, UploadId=upload_id, PartNumber=span.number, Body=content
        )

    def finish(self, upload_id: str) -> None:
        """Make an object of the parts, which have all arrived; from then on nobody can send one."""
        parts = [{"PartNumber": n, "ETag": part.etag} for n, part in sorted(self.arrived(upload_id).items())]
        self._client.complete_multipart_upload(
            Bucket=self.bucket,
            Key=self.key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
        )

    def url(self, client: "S3Client", upload_id: str, span: Span, seconds: int) -> str:
        """A URL to which a client can PUT exactly this part's number of bytes.

        The length is among the signed headers: a body that is longer or shorter is refused.

        Args:
            client: Signs for the address that clients know.
            upload_id: Of this upload.
            span: The part.
            seconds: How long it lets a client in.
        """
        given = {"Bucket": self.bucket, "Key": self.key, "UploadId": upload_id}
        given |= {"PartNumber": span.number, "ContentLength": span.bytes}  # type: ignore[dict-item]
        return client.generate_presigned_url("upload_part", Params=given, ExpiresIn=seconds)


def _spans(size: int, part_bytes: int) -> Iterator[Span]:
    step = max(part_bytes, -(-size // MOST_PARTS))
    for number, offset in enumerate(range(0, size, step), 1):
        yield Span(number, offset, min(step, size - offset))
