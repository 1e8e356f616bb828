"""What the service answers, as objects. Fields that a newer service adds are passed over."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from pnc_core.config import CloneConfig, NetworkSpec

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Answer(BaseModel):
    """Any answer: read-only."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Fault(Answer):
    """One fault of a request."""

    pointer: str
    code: str
    detail: str


class Part(Answer):
    """Some bytes of an upload that have not arrived, and where to send them."""

    number: int
    offset: int
    bytes: int
    url: str


class Upload(Answer):
    """A file on its way in."""

    id: str
    status: str
    bytes: int
    digest: str
    received: int
    content_url: str | None
    parts: list[Part] | None


class Model(Answer):
    """A registered network, as a name for its versions."""

    id: str
    name: str
    description: str
    last_version: int
    aliases: dict[str, int]
    created_at: datetime
    archived_at: datetime | None


class Version(Answer):
    """One immutable set of weights."""

    id: str
    ref: str
    number: int
    status: str
    spec: NetworkSpec
    licence: str
    digest: str
    bytes: int
    fingerprint: str | None
    parameters: int | None
    macs: int | None
    problem: dict[str, Any] | None
    created_at: datetime


class Dataset(Answer):
    """Labelled images in one Parquet file."""

    id: str
    name: str
    rows: int
    classes: list[str]
    counts: dict[str, int]
    digest: str
    bytes: int
    created_at: datetime


class Job(Answer):
    """One cloning job."""

    id: str
    state: str
    stage: str | None
    progress: float
    target: str
    source: str
    dataset: str
    config: CloneConfig
    module: str | None
    problem: dict[str, Any] | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


class Estimate(Answer):
    """What a job will cost at most."""

    old_images: int
    new_images: int
    macs: int | None
    module_parameters: int | None


class Verdict(Answer):
    """Whether a job would be accepted."""

    valid: bool
    problems: list[Fault]
    estimate: Estimate | None


class Event(Answer):
    """One line of a job's history."""

    id: str
    seq: int
    type: str
    state: str
    stage: str | None
    progress: float
    message: str
    data: dict[str, Any]
    created_at: datetime


class Trial(Answer):
    """One position that a job tried."""

    id: str
    attempt: int
    target_position: str
    source_position: str
    round: int
    score: float
    old: float | None
    new: float | None
    parameters: int | None
    macs: int | None
    seconds: float | None


class Bundle(Answer):
    """One file of a module."""

    payload: str
    digest: str
    bytes: int


class Module(Answer):
    """What a job cloned."""

    id: str
    job: str
    target: str
    source: str
    target_fingerprint: str
    classes: list[str]
    bundles: list[Bundle]
    created_at: datetime


class Desired(Answer):
    """What shall be served."""

    target: str
    modules: list[str]


class Observed(Answer):
    """What the serving process last reported."""

    generation: int | None
    problem: dict[str, Any] | None


class Deployment(Answer):
    """A target served under a name."""

    id: str
    name: str
    generation: int
    desired: Desired
    observed: Observed

    @property
    def settled(self) -> bool:
        """Whether the serving process has worked on the newest generation."""
        return self.observed.generation == self.generation


class Revision(Answer):
    """What a deployment served, or was to serve, at one generation."""

    generation: int
    target: str
    modules: list[str]
    refused: bool
    """The serving process would not have it."""
    created_at: datetime


class ClassScore(Answer):
    """One class of a prediction."""

    name: str
    probability: float
    logit: float


class ServedModule(Answer):
    """A module that took part in a prediction."""

    id: str
    digest: str


class Prediction(Answer):
    """What a deployment sees in an image."""

    deployment: str
    generation: int
    target: str
    target_fingerprint: str
    modules: list[ServedModule]
    classes: list[ClassScore]
    """Most likely first."""
