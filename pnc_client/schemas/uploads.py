"""JSON types of uploads."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import RequestBody, ResponseBody, known

UploadStatus = Literal["open", "complete"]


class UploadCreate(RequestBody):
    """Announcement of a file."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bytes": 1078412, "sha256": "9f86d081" * 8}]})

    bytes: int = Field(ge=1)
    """Size of the file in bytes."""
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    """SHA-256 of the file, in hexadecimal."""


class Part(ResponseBody):
    """A missing part of an upload, and the URL to send the part to."""

    number: int
    """Number of the part, from 1."""
    offset: int
    """Offset of the part's first byte in the file."""
    bytes: int
    """Exact size of the part in bytes; a longer or shorter body is refused."""
    url: str
    """URL for a PUT of the part's bytes, valid for 15 minutes; GET the upload for a new URL."""


class Upload(ResponseBody):
    """A file that is being uploaded."""

    id: str
    """Typed id, `up_...`."""
    status: Annotated[str, known(UploadStatus)]
    """`open` until all bytes have arrived and are checked, then `complete`."""
    bytes: int
    """Announced size in bytes."""
    digest: str
    """Announced SHA-256."""
    received: int
    """Number of bytes that have arrived; a broken transfer continues at this offset."""
    content_url: str | None
    """URL for a PUT of the bytes; null: `parts` has the URLs."""
    parts: list[Part] | None
    """Missing parts, each with a URL of the object store; null: all bytes go to `content_url`."""
    created_at: datetime
    """Time of the announcement."""
    completed_at: datetime | None
    """Time of completion; null: not complete."""

    @classmethod
    def of(cls, row: Any, received: int, parts: Sequence[Any] | None) -> "Upload":
        """From an upload's row, its number of arrived bytes and its missing parts."""
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
