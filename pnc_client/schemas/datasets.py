"""JSON types of datasets."""

from datetime import datetime

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody


class DatasetCreate(RequestBody):
    """A dataset to register."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "digits", "upload": "up_019aa3b0c1d27f0e9d5c6b7a8f901234"}]}
    )

    name: str = Field(pattern=NAME_PATTERN)
    """Name for people; several datasets may share it."""
    upload: str
    """Id of a complete upload: Parquet with columns `image` and `label`, or `image` alone for images without labels."""
    classes: list[str] | None = Field(None, min_length=1)
    """Class names in the order of the labels; omitted: the names in the file's metadata."""


class Dataset(ResponseBody):
    """Images in one Parquet file."""

    id: str
    """Typed id, `ds_...`."""
    name: str
    """Name for people."""
    rows: int
    """Number of images."""
    classes: list[str]
    """Class names in the order of the labels; empty: the images have no labels, and jobs need `labels: false`."""
    counts: dict[str, int]
    """Number of images of each class."""
    digest: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file in bytes."""
    created_at: datetime
    """Time of registration."""
    archived_at: datetime | None
    """Time of archiving; null: not archived."""
