"""Uploads."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from app.api.wire.shapes import Answer, Body


class UploadCreate(Body):
    """A file to come."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bytes": 1078412, "sha256": "9f86d081" * 8}]})

    bytes: int = Field(ge=1)
    """Size of the file."""
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    """SHA-256 of its bytes, in hexadecimal."""


class Upload(Answer):
    """A file on its way in."""

    id: str
    """Typed id, `up_...`."""
    status: Literal["open", "complete"]
    """`complete` once its bytes are checked."""
    bytes: int
    """Announced size."""
    digest: str
    """Announced SHA-256."""
    received: int
    """Bytes that have arrived; a broken transfer goes on here."""
    content_url: str
    """Where to PUT the bytes."""
    created_at: datetime
    """When it was announced."""
    completed_at: datetime | None
    """When it was completed."""

    @classmethod
    def of(cls, row: Any, received: int) -> "Upload":
        """From an upload's row and the bytes that have arrived."""
        return cls(
            id=row.id,
            status="open" if row.key is None else "complete",
            bytes=row.bytes,
            digest=row.digest,
            received=received,
            content_url=f"/v1/uploads/{row.id}/content",
            created_at=row.created_at,
            completed_at=row.completed_at,
        )
