"""JSON types of models, versions and aliases."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.checks import VersionCheck
from pnc_client.schemas.problems import Fault
from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody, known
from pnc_core.config import NetworkSpec

MAX_DESCRIPTION = 10_000
"""Maximum characters of a model's card."""
VersionStatus = Literal["validating", "ready", "rejected"]


class ModelCreate(RequestBody):
    """A model to register."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "digits-low", "description": "Digits 0 to 4"}]})

    name: str = Field(pattern=NAME_PATTERN)
    """Unique name: lower-case letters, digits and `. _ -`; it must not begin like an id (`mdl_`, `ver_`)."""
    description: str = Field("", max_length=MAX_DESCRIPTION)
    """Model card in Markdown; its first line is the summary in lists."""


class ModelChange(RequestBody):
    """Changes of a model; omitted fields stay unchanged."""

    description: str | None = Field(None, max_length=MAX_DESCRIPTION)
    """New model card in Markdown."""
    archived: bool | None = None
    """True: archive; false: restore."""
    clonable: Annotated[list[str], Field(max_length=100_000)] | Literal["all"] | None = None
    """Classes that jobs may clone from the model; `[]`: none; `all`: all classes."""


class Alias(ResponseBody):
    """A name of a version that can be moved to another version."""

    alias: str
    """Name of the alias, used as `model@alias`."""
    version: int
    """Number of the version that the alias points at."""
    updated_at: datetime
    """Time of the last change."""

    @classmethod
    def of(cls, row: Any) -> "Alias":
        """From an alias's row."""
        return cls(alias=row.alias, version=row.version.number, updated_at=row.updated_at)


class ClassName(ResponseBody):
    """One class of a version."""

    number: int
    """Index of its logit; the first class has the number 0. `#0` names it in a job."""
    name: str
    """Name in the version's spec; jobs and modules show this name."""
    aliases: list[str]
    """Other names that a job may use."""


class AliasSet(RequestBody):
    """The version that an alias points at."""

    version: int = Field(ge=1)
    """Number of the version."""


class Model(ResponseBody):
    """A registered network: a name and its versions."""

    id: str
    """Typed id, `mdl_...`."""
    name: str
    """Unique name."""
    description: str
    """Model card in Markdown; its first line is the summary in lists."""
    last_version: int
    """Number of the newest version; 0: the model has no versions."""
    aliases: dict[str, int]
    """Version number of each alias."""
    clonable: list[str] | None
    """Classes that jobs may clone from the model; null: all classes."""
    created_at: datetime
    """Time of registration."""
    archived_at: datetime | None
    """Time of archiving; null: not archived."""

    @classmethod
    def of(cls, row: Any) -> "Model":
        """From a model's row."""
        aliases = {alias.alias: alias.version.number for alias in row.aliases}
        plain = {name: getattr(row, name) for name in cls.model_fields if name != "aliases"}
        return cls.model_validate({**plain, "aliases": aliases})


class SpecCheck(RequestBody):
    """The spec of a network whose weights are not uploaded yet."""

    spec: NetworkSpec
    """Spec of the network."""


class SpecVerdict(ResponseBody):
    """Result of a spec's check."""

    valid: bool
    """Whether `problems` is empty."""
    problems: list[Fault]
    """Faults for which a worker would reject a version with this spec."""


class Origin(RequestBody):
    """The place that a version's weights were imported from."""

    source: str = Field(max_length=2000)
    """Source without secrets, e.g. `torchvision/resnet18@IMAGENET1K_V1` or `hf://owner/name@main`."""
    revision: str | None = Field(None, max_length=200)
    """Name of the weights (torchvision), commit (Hugging Face Hub) or number of the version (MLflow)."""
    url: str | None = Field(None, max_length=2000)
    """Address of the file, without a query."""
    file: str | None = Field(None, max_length=500)
    """Name of the file."""
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file at the source, before any conversion."""


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
    """Spec of the network: architecture, classes and preprocessing."""
    licence: str = Field("", max_length=200)
    """Licence of the weights."""
    origin: Origin | None = None
    """Place that the weights were imported from."""


class Version(ResponseBody):
    """One immutable set of weights."""

    id: str
    """Typed id, `ver_...`."""
    ref: str
    """Reference of the version, `model@3`, for people and requests."""
    number: int
    """Number of the version within the model, from 1."""
    status: Annotated[str, known(VersionStatus)]
    """`validating` until a worker has checked the weights, then `ready` or `rejected`."""
    spec: NetworkSpec
    """Spec of the network: architecture, classes and preprocessing."""
    licence: str
    """Licence of the weights."""
    origin: Origin | None
    """Place that the weights were imported from; null: they were uploaded without one."""
    digest: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file in bytes."""
    fingerprint: str | None
    """Digest of parameters and buffers; null: the version is not ready."""
    parameters: int | None
    """Number of trainable parameters; null: the version is not ready."""
    macs: int | None
    """Multiply-accumulates for one image; null: the version is not ready."""
    accuracy: float | None
    """Accuracy, 0 to 1, measured by a check or a job on images of all classes; null: not measured."""
    accuracy_images: int | None
    """Number of images of that measurement."""
    accuracy_dataset: str | None
    """Id of the dataset of that measurement."""
    checking: str | None = None
    """Id of the dataset on which a worker checks the version next; null: no check waits or runs."""
    check: VersionCheck | None = None
    """Result of the newest check on labelled images; null: not checked."""
    problem: dict[str, Any] | None
    """Problem document that says why the version was rejected; null: not rejected."""
    created_at: datetime
    """Time of creation."""
    archived_at: datetime | None
    """Time of archiving; null: not archived."""
