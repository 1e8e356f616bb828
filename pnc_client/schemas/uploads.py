"""Uploads."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import RequestBody, ResponseBody, known

UploadStatus = Literal["open", "complete"]


class UploadCreate(RequestBody):
    """A file to come."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bytes": 1078412, "sha256": "9f86d081" * 8}]})

    bytes: int = Field(ge=1)
    """Size of the file."""
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    """SHA-256 of its bytes, in hexadecimal."""


class Part(ResponseBody):
    """Some bytes of an upload that have not arrived, and where to send them."""

    number: int
    """Counts from 1."""
    offset: int
    """Where they begin in the file."""
    bytes: int
    """How many they are, exactly; a longer or shorter body is refused."""
    url: str
    """PUT them here, as they are, within a quarter of an hour; GET the upload for a new URL."""


class Upload(ResponseBody):
    """A file on its way in."""

    id: str
    """Typed id, `up_...`."""
    status: Annotated[str, known(UploadStatus)]
    """`complete` once its bytes are checked."""
    bytes: int
    """Announced size."""
    digest: str
    """Announced SHA-256."""
    received: int
    """Bytes that have arrived; a broken transfer goes on here."""
    content_url: str | None
    """Where to PUT the bytes; none: `parts` says where."""
    parts: list[Part] | None
    """What has not arrived, each with a URL of the object store; none: all goes to `content_url`."""
    created_at: datetime
    """When it was announced."""
    completed_at: datetime | None
    """When it was completed."""

    @classmethod
    def of(cls, row: Any, received: int, parts: Sequence[Any] | None) -> "Upload":
        """From an upload's row, the bytes that have arrived and the parts that have not."""
        return cls(
            id=row.id,
            status="open" if row.key is None else "complete",
            bytes=row.bytes,
            digest=row.digest,
            received=received,
            content_url=f"/v1/uploads/{row.id}/content" if parts is None else None,
            parts=None if parts is None else [Part.model_validate(part) for part in parts],
            created_at=row.created_at,
            completed_at=row.completed_at,
        )
