"""Models, versions and aliases."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody, known
from pnc_core.config import NetworkSpec

MAX_DESCRIPTION = 10_000
"""Characters of a model's card."""
VersionStatus = Literal["validating", "ready", "rejected"]


class ModelCreate(RequestBody):
    """A model to register."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "digits-low", "description": "Digits 0 to 4"}]})

    name: str = Field(pattern=NAME_PATTERN)
    """Unique name: lower-case letters, digits and `. _ -`; it does not begin like an id (`mdl_`, `ver_`)."""
    description: str = Field("", max_length=MAX_DESCRIPTION)
    """Its card in Markdown; the first line says what it is."""


class ModelChange(RequestBody):
    """What may change of a model."""

    description: str | None = Field(None, max_length=MAX_DESCRIPTION)
    """New card in Markdown; left out: as it is."""
    archived: bool | None = None
    """Archive or restore; left out: as it is."""
    clonable: Annotated[list[str], Field(max_length=100_000)] | Literal["all"] | None = None
    """Classes that jobs may clone from it, `[]` for none, `all`; left out: as it is."""


class Alias(ResponseBody):
    """A movable name of a version."""

    alias: str
    """Its name, used as `model@alias`."""
    version: int
    """Number of the version it points at."""
    updated_at: datetime
    """When it was last moved."""

    @classmethod
    def of(cls, row: Any) -> "Alias":
        """From an alias's row."""
        return cls(alias=row.alias, version=row.version.number, updated_at=row.updated_at)


class AliasSet(RequestBody):
    """Where an alias shall point."""

    version: int = Field(ge=1)
    """Number of the version."""


class Model(ResponseBody):
    """A registered network, as a name for its versions."""

    id: str
    """Typed id, `mdl_...`."""
    name: str
    """Unique name."""
    description: str
    """Its card in Markdown; the first line says what it is."""
    last_version: int
    """Number of the newest version; 0 without any."""
    aliases: dict[str, int]
    """Version numbers by alias."""
    clonable: list[str] | None
    """Classes that jobs may clone from it; null: all of them."""
    created_at: datetime
    """When it was registered."""
    archived_at: datetime | None
    """When it was archived, if it is."""

    @classmethod
    def of(cls, row: Any) -> "Model":
        """From a model's row."""
        aliases = {alias.alias: alias.version.number for alias in row.aliases}
        plain = {name: getattr(row, name) for name in cls.model_fields if name != "aliases"}
        return cls.model_validate({**plain, "aliases": aliases})


class VersionCreate(RequestBody):
    """A version to add."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "upload": "up_019aa3b0c1d27f0e9d5c6b7a8f901234",
                    "spec": {
                        "architecture": "resnet20",
                        "classes": ["0", "1", "2", "3", "4"],
                        "input_size": [1, 32, 32],
                        "mean": [0.5],
                        "std": [0.5],
                    },
                    "licence": "Apache-2.0",
                }
            ]
        }
    )

    upload: str
    """Id of a complete upload: a safetensors file."""
    spec: NetworkSpec
    """How to rebuild the network and feed it."""
    licence: str = Field("", max_length=200)
    """Licence of the weights."""


class Version(ResponseBody):
    """One immutable set of weights."""

    id: str
    """Typed id, `ver_...`."""
    ref: str
    """Name for people and requests: `model@3`."""
    number: int
    """Counts from 1 within the model."""
    status: Annotated[str, known(VersionStatus)]
    """`validating` until a worker has loaded the weights."""
    spec: NetworkSpec
    """How to rebuild the network."""
    licence: str
    """Licence of the weights."""
    digest: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file."""
    fingerprint: str | None
    """Digest of parameters and buffers, once ready."""
    parameters: int | None
    """How many numbers the network learns, once ready."""
    macs: int | None
    """Multiply-accumulates of one image, once ready."""
    accuracy: float | None
    """Share of images that it names right, once a job whose dataset has images of all its classes has measured it."""
    accuracy_images: int | None
    """On how many images."""
    accuracy_dataset: str | None
    """Id of the dataset that they are from."""
    problem: dict[str, Any] | None
    """Why it was rejected."""
    created_at: datetime
    """When it was added."""
    archived_at: datetime | None
    """When it was archived, if it is."""
