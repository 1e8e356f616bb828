"""What the service answers, as objects. Fields that a newer service adds are passed over.

Versions, jobs, modules and deployments know the client that they came from, so that `job.wait()` is
`client.jobs.wait(job.id)`. They are still what the service said at that moment: a method returns the newer object.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, PrivateAttr

from app.client import notebook
from pnc_core.config import CloneConfig, NetworkSpec

if TYPE_CHECKING:
    from app.client.client import Client

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Answer(BaseModel):
    """Any answer: read-only."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Bound(Answer):
    """An answer that knows the client that it came from."""

    _client: "Client | None" = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the client, which reading an answer gives as its context."""
        self._client = context

    @property
    def client(self) -> "Client":
        """The client that it came from.

        Raises:
            ValueError: it was made by hand.
        """
        if self._client is None:
            raise ValueError(f"expected an object that a client fetched, got a {type(self).__name__} made by hand")
        return self._client


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
    clonable: list[str] | None = None
    created_at: datetime
    archived_at: datetime | None


class Version(Bound):
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
    accuracy: float | None = None
    """Share of images that it names right, once a job has measured it."""
    accuracy_images: int | None = None
    accuracy_dataset: str | None = None
    problem: dict[str, Any] | None
    created_at: datetime
    archived_at: datetime | None = None

    def wait(self, timeout: float = 300.0) -> "Version":
        """Wait until a worker has tried it; see `client.models.wait`."""
        return self.client.models.wait(self.ref.partition("@")[0], self.number, timeout)


class Alias(Answer):
    """A movable name of a version."""

    alias: str
    version: int
    updated_at: datetime


class Dataset(Answer):
    """Images in one Parquet file; without classes they have no labels."""

    id: str
    name: str
    rows: int
    classes: list[str]
    counts: dict[str, int]
    digest: str
    bytes: int
    created_at: datetime
    archived_at: datetime | None = None


class Job(Bound):
    """One cloning job."""

    id: str
    state: str
    stage: str | None
    progress: float
    target: str
    source: str
    dataset: str
    config: CloneConfig
    device: str
    size: str
    max_seconds: int | None
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

    def refresh(self) -> "Job":
        """The job as it is now."""
        return self.client.jobs.get(self.id)

    def wait(
        self,
        on_event: "Callable[[Event], object] | None" = None,
        *,
        progress: Callable[[float, str], object] | None = None,
    ) -> "Job":
        """Wait until it has ended; see `client.jobs.wait`."""
        return self.client.jobs.wait(self.id, on_event, progress=progress)

    def cancel(self) -> "Job":
        """Cancel it; see `client.jobs.cancel`."""
        return self.client.jobs.cancel(self.id)

    def trials(self) -> "Iterator[Trial]":
        """The positions that it has tried, oldest first."""
        return self.client.jobs.trials(self.id)

    def result(self) -> "Module":
        """The module that it cloned.

        Raises:
            ValueError: it has none (yet).
        """
        if self.module is None:
            raise ValueError(f"{self.id}: expected a job that succeeded, got one that is {self.state}; wait for it")
        return self.client.modules.get(self.module)

    def _repr_html_(self) -> str:
        trials = [trial.model_dump() for trial in self.trials()] if self._client else []
        return notebook.job_card(self.model_dump(), trials)


class Attempt(Answer):
    """One claim of a job by a worker."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    reason: str


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


class Module(Bound):
    """What a job cloned."""

    id: str
    job: str
    target: str
    source: str
    target_fingerprint: str
    classes: list[str]
    bundles: list[Bundle]
    created_at: datetime
    archived_at: datetime | None = None

    def manifest(self) -> dict[str, Any]:
        """What its bundle says about itself."""
        return self.client.modules.manifest(self.id)

    def download(
        self,
        path: Path | str | None = None,
        payload: str = "full",
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Download a bundle; see `client.modules.download`.

        Args:
            path: Where to put it; left out: `<id>.<payload>.safetensors` in the working directory.
            payload: `thin` or `full`.
            progress: Told the bytes that have come, and all bytes.
        """
        file = Path(path) if path is not None else Path(f"{self.id}.{payload}.safetensors")
        return self.client.modules.download(self.id, payload, file, progress=progress)

    def _repr_html_(self) -> str:
        return notebook.module_card(self.model_dump(), self.manifest() if self._client else None)


class Desired(Answer):
    """What shall be served."""

    target: str
    modules: list[str]


class Observed(Answer):
    """What the serving process last reported."""

    generation: int | None
    problem: dict[str, Any] | None


class Deployment(Bound):
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

    def attach(self, module: "Module | str") -> "Deployment":
        """Attach a module; see `client.deployments.attach`."""
        return self.client.deployments.attach(self.name, _id(module))

    def detach(self, module: "Module | str") -> "Deployment":
        """Detach a module; see `client.deployments.detach`."""
        return self.client.deployments.detach(self.name, _id(module))

    def wait(self, timeout: float = 60.0) -> "Deployment":
        """Wait until the newest generation is served or refused; see `client.deployments.wait`."""
        return self.client.deployments.wait(self.name, timeout)

    def predict(self, image: bytes | Path, *, modules: Sequence[str] | None = None) -> "Prediction":
        """Classify an image; see `client.deployments.predict`."""
        return self.client.deployments.predict(self.name, image, modules=modules)


class Revision(Answer):
    """What a deployment served, or was to serve, at one generation."""

    generation: int
    target: str
    modules: list[str]
    refused: bool
    """The serving process would not have it."""
    created_at: datetime


class Replica(Answer):
    """A serving process, and what it does with a deployment."""

    id: str
    generation: int | None
    """Generation it last worked on; none: it has not heard of the deployment yet."""
    problem: dict[str, Any] | None
    """Why it does not serve that generation."""


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


def _id(module: Module | str) -> str:
    return module if isinstance(module, str) else module.id
