"""JSON types of datasets."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody, known


class DatasetCreate(RequestBody):
    """A dataset to register."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "digits", "upload": "up_019aa3b0c1d27f0e9d5c6b7a8f901234"}]}
    )

    name: str = Field(pattern=NAME_PATTERN)
    """Name for people; several datasets may share it."""
    upload: str
    """Id of a complete upload: Parquet with columns of images (`image`, `img`) and labels (`label`, `labels`,
    `fine_label`), or images alone."""
    classes: list[str] | None = Field(None, min_length=1)
    """Class names in the order of the labels; omitted: the names in the file's metadata."""


Inspection = Literal["waiting", "done", "failed"]


class DatasetWarning(ResponseBody):
    """One oddity of a dataset."""

    code: str
    """Kind of the oddity, e.g. `duplicates`."""
    detail: str
    """Message for people, one line."""


class Unreadable(ResponseBody):
    """One image that cannot be decoded."""

    row: int
    """Number of its row in the file, from 0."""
    name: str = ""
    """Name of its file, if the Parquet file has it."""
    reason: str
    """Why it cannot be decoded."""


class Findings(ResponseBody):
    """Facts about the images of a dataset, all of which were decoded once."""

    good: int
    """Number of images that can be decoded."""
    unreadable: int
    """Number of images that cannot; jobs leave them out."""
    first_unreadable: list[Unreadable]
    """The first ten of them."""
    exact: int
    """Number of images whose pixels equal those of an earlier image."""
    near: int
    """Number of different images that hardly differ from an earlier one, e.g. after another compression."""
    across: int
    """Number of groups of equal or nearly equal images that have different labels."""
    examples: list[tuple[int, int]]
    """Rows of at most ten equal or nearly equal pairs."""
    constant: int
    """Number of images of one colour."""
    distinct: dict[str, int]
    """Number of different images of each class; nearly equal images count once."""
    sizes: dict[str, int]
    """Smallest, median and largest height, width and shorter side in pixels, e.g. `shorter_median`."""
    warnings: list[DatasetWarning]
    """Oddities in words."""


class Dataset(ResponseBody):
    """Images in one Parquet file."""

    id: str
    """Typed id, `ds_...`."""
    name: str
    """Name for people."""
    rows: int
    """Number of rows of the file; `findings.good` counts the images that can be decoded."""
    classes: list[str]
    """Class names in the order of the labels; empty: the images have no labels, and jobs need `labels: false`."""
    counts: dict[str, int]
    """Number of images of each class; after the inspection only of those that can be decoded."""
    digest: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file in bytes."""
    created_at: datetime
    """Time of registration."""
    archived_at: datetime | None
    """Time of archiving; null: not archived."""
    inspection: Annotated[str, known(Inspection)] = "waiting"
    """`waiting` until a worker has decoded every image once, then `done`; `failed`: see `problem`."""
    inspected: int = 0
    """Number of rows that were looked at."""
    findings: Findings | None = None
    """Result of the inspection; null: not done."""
    problem: dict[str, Any] | None = None
    """Why the inspection failed; null: it has not."""
