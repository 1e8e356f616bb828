"""JSON types of cloning jobs, their attempts, events and trials."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from pnc_client.schemas.datasets import DatasetWarning
from pnc_client.schemas.problems import Fault
from pnc_client.schemas.shapes import RequestBody, ResponseBody, known
from pnc_core.config import CloneConfig

Row = TypeVar("Row")
Device = Literal["any", "cpu", "cuda"]
Size = Literal["small", "large"]
State = Literal[
    "validating", "queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"
]
JOB_EXAMPLE = {
    "summary": "Three digits",
    "value": {
        "target": "digits-low@1",
        "source": "digits-high",
        "dataset": "ds_019aa3b0c1d27f0e9d5c6b7a8f901234",
        "config": {"classes": ["7", "8", "9"], "keep": 0.5, "seed": 0},
    },
}


class Job(ResponseBody):
    """One cloning job."""

    id: str
    """Typed id, `job_...`."""
    state: Annotated[str, known(State)]
    """State of the job; the description of the API lists the states and their order."""
    stage: str | None
    """Current or last step of the worker, e.g. `localizing`; null: no worker has started the job."""
    progress: float
    """Finished share of the job, 0 to 1."""
    target: str
    """Version that gains classes."""
    source: str
    """Version that the classes are cloned from."""
    dataset: str
    """Id of the dataset."""
    config: CloneConfig
    """Classes and parameters of the job."""
    device: Annotated[str, known(Device)]
    """Device of the workers that may run the job."""
    size: Annotated[str, known(Size)]
    """Queue of the job, chosen by its estimated cost."""
    max_seconds: int | None
    """Time limit of one attempt, in seconds; null: no limit."""
    anyway: bool = False
    """Whether the job runs although a network's accuracy on its images is near chance, or although the job's estimated
    memory exceeds the worker's."""
    module: str | None
    """Id of the cloned module; null: the job has not succeeded."""
    problem: dict[str, Any] | None
    """Problem document that says why the job failed; null: the job has not failed."""
    attempts: int
    """Number of attempts that died before the last attempt; 0: the first attempt is the last."""
    created_at: datetime
    """Time of submission."""
    started_at: datetime | None
    """Time when a worker first claimed the job."""
    finished_at: datetime | None
    """Time when the job succeeded, failed or was cancelled."""

    @classmethod
    def of(cls, row: Any) -> "Job":
        """From a job's row."""
        own = {
            "target": row.target_ref,
            "source": row.source_ref,
            "dataset": row.dataset_id,
            "module": row.module.id if row.module else None,
        }
        return cls.model_validate({**{n: getattr(row, n) for n in cls.model_fields if n not in own}, **own})


class Attempt(ResponseBody):
    """One claim of a job by a worker."""

    number: int
    """Number of the claim; each claim adds 1."""
    worker: str
    """Name of the worker."""
    started_at: datetime
    """Time of the claim."""
    ended_at: datetime | None
    """Time when the attempt ended; null: it is running."""
    outcome: str | None
    """The job's new state, `released`, or the cause of death of the attempt: `crashed`, `silent`, `out_of_memory`."""
    reason: str
    """Message for people, one line."""


class Estimate(ResponseBody):
    """Upper bounds of a job's cost."""

    old_images: int
    """Number of images of the target's classes."""
    new_images: int
    """Number of images of the cloned classes."""
    macs: int | None
    """Multiply-accumulates of screening and training together."""
    module_parameters: int | None
    """Numbers of the largest module that `max_size` allows, or of the source if it may be taken whole, without the
    head."""


class Advice(ResponseBody):
    """Forecast of a job. Nothing is cloned; heads are cross-fitted on both networks' features of a sample of images."""

    accuracy: float
    """Expected accuracy of the target with the module, 0 to 1: the mean of old and cloned classes."""
    low: float
    """Lower end of the 90 % interval of `accuracy`."""
    high: float
    """Upper end."""
    old: float | None
    """Expected accuracy on images of the target's own classes."""
    new: float | None
    """Expected accuracy on images of the cloned classes."""
    images: int
    """Images of the sample."""
    numbers: int
    """Numbers of a module of the whole source; the module of the job is usually smaller."""
    text: str
    """Comparison with answers that need no module, one sentence."""
    more_per_class: float
    """Four times as many images of a class as the dataset has on average."""
    more_accuracy: float
    """Forecast of `accuracy` with so many images."""
    seconds: float
    """Expected seconds of the job on this machine, to a factor of about two."""


class Verdict(ResponseBody):
    """Result of a job's validation."""

    valid: bool
    """Whether `problems` is empty."""
    problems: list[Fault]
    """Faults for which a submission would be refused."""
    estimate: Estimate | None
    """Estimated cost; null: a model, version or dataset was not found."""
    warnings: list[DatasetWarning] = []
    """Oddities of the images; they do not refuse a submission."""
    advice: Advice | None = None
    """Forecast of the job; null: not asked for, or not possible."""
    no_advice: str | None = None
    """Reason for which there is no forecast although it was asked for."""


class KnownClass(ResponseBody):
    """A class of the workspace's models."""

    name: str
    """Name of the class in the newest of these versions."""
    versions: list["KnowingVersion"]
    """Versions that have it, newest model first."""


class KnowingVersion(ResponseBody):
    """A version that has a class."""

    version: str
    """The version, `name@number`."""
    accuracy: float | None
    """Its accuracy as registered, 0 to 1; null: not given."""


class ClassSearch(ResponseBody):
    """Classes that a search has found in all models of a workspace."""

    classes: list[KnownClass]
    """The first classes."""
    total: int
    """Number of classes that match the search."""


class RecommendationRequest(RequestBody):
    """Classes for a target to learn, and images to measure with."""

    target: str
    """Version that gains classes: `name`, `name@3` or `name@alias`."""
    classes: list[str] = Field(min_length=1, max_length=1000)
    """Classes to learn, by name, other name or WordNet id."""
    dataset: str
    """Id of a dataset with images of the target's own classes and of these."""
    most: int = Field(8, ge=1, le=24)
    """Most sources that are measured, the most accurate ones first."""


class Recommendation(ResponseBody):
    """A version that has all wanted classes, and what to expect of a job with it."""

    source: str
    """The version, `name@number`."""
    classes: list[str]
    """The wanted classes, by this version's names."""
    advice: Advice | None
    """Forecast of the job; null: there is none."""
    probe: float | None
    """Expected accuracy of a linear probe on the target alone, which needs no source; null: there is no forecast."""
    no_advice: str | None
    """Reason for which there is no forecast."""


class Recommendations(ResponseBody):
    """Sources for a target, the best first; sources without a forecast come last."""

    best: str | None
    """The first source; null: no source is expected to be better than a linear probe on the target alone."""
    text: str
    """The result in one sentence."""
    sources: list[Recommendation]
    """The measured sources."""
    others: int
    """Number of further versions that have the classes and were not measured."""


class Event(ResponseBody):
    """One event of a job."""

    id: str
    """Typed id, `evt_...`."""
    seq: int
    """Number of the event within the job, from 1 without gaps."""
    type: str
    """`state`, `progress` or `trial`."""
    state: str
    """State of the job after the event."""
    stage: str | None
    """Step of the worker at the event."""
    progress: float
    """Finished share of the job, 0 to 1."""
    message: str
    """Message for people, one line."""
    data: dict[str, Any]
    """Details for programs, by `type`."""
    created_at: datetime
    """Time of the event."""


class Trial(ResponseBody):
    """One trial of a pair of positions."""

    id: str
    """Typed id, `trl_...`."""
    attempt: int
    """Number of the attempt that ran the trial, from 1."""
    target_position: str
    """Position of the target whose features the module reads."""
    source_position: str
    """Position of the source at which the module's tail begins."""
    round: int
    """0: screened without training; 1, 2, ...: rounds of training, each with half of the positions."""
    score: float
    """Score that ranks the positions; higher is better."""
    old: float | None
    """Accuracy on held-out images of the target's classes."""
    new: float | None
    """Accuracy on held-out images of the cloned classes."""
    parameters: int | None
    """Size of the module in numbers."""
    macs: int | None
    """Multiply-accumulates that the module adds for one image."""
    seconds: float | None
    """Duration of the trial in seconds."""
    created_at: datetime
    """Time of the trial."""


def newest_trials(rows: Iterable[Row], field: Callable[[Row, str], Any]) -> list[Row]:
    """The newest trial of each pair of positions in each round, oldest first.

    An attempt that continues from a checkpoint reports only the trials that it repeats, so a job's
    trials are the trials of all its attempts.

    Args:
        rows: Trials of one job, oldest first.
        field: Reads a field of a row, e.g. `getattr`; an `attempt` of None means the first attempt.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: field(row, "attempt") or 1):
        pair_and_round = tuple(field(row, name) for name in ("target_position", "source_position", "round"))
        found.pop(pair_and_round, None)
        found[pair_and_round] = row
    return list(found.values())
