"""Cloning jobs, their events and trials."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pnc_client.schemas.problems import Fault
from pnc_client.schemas.shapes import ResponseBody, known
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
    """Where it is on its way; see the description of the API."""
    stage: str | None
    """What its worker is doing, e.g. `localizing`."""
    progress: float
    """Share that is done, 0 to 1."""
    target: str
    """Version that gains classes."""
    source: str
    """Version they are cloned from."""
    dataset: str
    """Id of the dataset."""
    config: CloneConfig
    """What to clone and how."""
    device: Annotated[str, known(Device)]
    """Which workers may take it."""
    size: Annotated[str, known(Size)]
    """Which queue it waits in, by its estimated cost."""
    max_seconds: int | None
    """How long an attempt may take."""
    module: str | None
    """Id of the module, once succeeded."""
    problem: dict[str, Any] | None
    """Why it failed."""
    attempts: int
    """How many runs died before the one that counts: 0 when the first one did it."""
    created_at: datetime
    """When it was submitted."""
    started_at: datetime | None
    """When a worker first took it."""
    finished_at: datetime | None
    """When it ended."""

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
    """Grows with every claim."""
    worker: str
    """Who took it."""
    started_at: datetime
    """When it was taken."""
    ended_at: datetime | None
    """When it was given up; none while it runs."""
    outcome: str | None
    """The job's new state, `released`, or why the attempt died: `crashed`, `silent`, `out_of_memory`."""
    reason: str
    """One line for people."""


class Estimate(ResponseBody):
    """What a job will cost at most."""

    old_images: int
    """Images of the target's classes."""
    new_images: int
    """Images of the cloned classes."""
    macs: int | None
    """Multiply-accumulates of screening and training."""
    module_parameters: int | None
    """Largest module that `max_size` allows."""


class Verdict(ResponseBody):
    """Whether a job would be accepted."""

    valid: bool
    """Whether `problems` is empty."""
    problems: list[Fault]
    """What a submission would be refused for."""
    estimate: Estimate | None
    """What it would cost; none when a reference leads nowhere."""


class Event(ResponseBody):
    """One line of a job's history."""

    id: str
    """Typed id, `evt_...`."""
    seq: int
    """Counts from 1 without gaps."""
    type: str
    """`state`, `progress` or `trial`."""
    state: str
    """The job's state after it."""
    stage: str | None
    """What the worker was doing."""
    progress: float
    """Share that was done, 0 to 1."""
    message: str
    """One line for people."""
    data: dict[str, Any]
    """Details for programs."""
    created_at: datetime
    """When it happened."""


class Trial(ResponseBody):
    """One position that a job tried."""

    id: str
    """Typed id, `trl_...`."""
    attempt: int
    """Which attempt of the job tried it, counted from 1."""
    target_position: str
    """Where the target is read."""
    source_position: str
    """Where the source is entered."""
    round: int
    """0 for the screen, then 1, 2, ... as the short list is halved."""
    score: float
    """What positions are compared by; higher is better."""
    old: float | None
    """Accuracy on held-out images of the target's classes."""
    new: float | None
    """Accuracy on held-out images of the cloned classes."""
    parameters: int | None
    """Size of the module."""
    macs: int | None
    """Multiply-accumulates that it adds to one image."""
    seconds: float | None
    """How long it took."""
    created_at: datetime
    """When it was tried."""


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
