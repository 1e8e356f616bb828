"""Cloning jobs."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from pnc_client import pictures
from pnc_client.http import Connected, Http, path_of
from pnc_client.modules import Module, Modules
from pnc_client.schemas import jobs as schemas
from pnc_client.schemas.jobs import Attempt, Event, Trial, Verdict
from pnc_client.streams import follow
from pnc_core.config import CloneConfig

_PATH = "/v1/cloning-jobs"
Progress = Callable[[float, str], object]
"""Called with the share that is done, 0 to 1, and a line for people."""


ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Job(schemas.Job, Connected):
    """One cloning job."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    def refresh(self) -> "Job":
        """The job as it is now."""
        return Jobs(self.http).get(self.id)

    def wait(
        self,
        on_event: Callable[[Event], object] | None = None,
        *,
        progress: Progress | None = None,
    ) -> "Job":
        """Wait until it has ended; see `Jobs.wait`."""
        return Jobs(self.http).wait(self.id, on_event, progress=progress)

    def cancel(self) -> "Job":
        """Cancel it; see `Jobs.cancel`."""
        return Jobs(self.http).cancel(self.id)

    def trials(self) -> Iterator[Trial]:
        """The positions that it has tried, oldest first."""
        return Jobs(self.http).trials(self.id)

    def result(self) -> Module:
        """The module that it cloned.

        Raises:
            ValueError: it has none (yet).
        """
        if self.module is None:
            raise ValueError(f"{self.id}: expected a job that succeeded, got one that is {self.state}; wait for it")
        return Modules(self.http).get(self.module)

    def _repr_html_(self) -> str:
        return pictures.job_card(self.model_dump(), list(self.trials()) if self._connection else [])


class Jobs:
    """The resource `/v1/cloning-jobs`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(
        self,
        target: str,
        source: str,
        dataset: str,
        config: CloneConfig,
        *,
        device: str = "any",
        max_seconds: int | None = None,
    ) -> Job:
        """Submit a job: give `target` the classes `config.classes` of `source`.

        Args:
            target: Version that gains classes: `name` (its newest ready version), `name@3` or `name@alias`.
            source: Version they are cloned from.
            dataset: Id of a dataset with images of both.
            config: What to clone and how.
            device: Which workers may take it: `cpu`, `cuda`, or `any`.
            max_seconds: How long an attempt may take.

        Raises:
            ApiError: the job makes no sense; `errors` says why.
        """
        asked = {**_body(target, source, dataset, config), "device": device, "max_seconds": max_seconds}
        return self._http.post(Job, _PATH, asked)

    def validate(self, target: str, source: str, dataset: str, config: CloneConfig) -> Verdict:
        """What `create` would refuse, and what the job would cost."""
        return self._http.post(Verdict, f"{_PATH}/validate", _body(target, source, dataset, config))

    def get(self, job_id: str) -> Job:
        """One job."""
        return self._http.get(Job, path_of("cloning-jobs", job_id))

    def list(self, *, state: str | None = None) -> Iterator[Job]:
        """All jobs, newest first, of one state or all."""
        return self._http.pages(Job, _PATH, state=state)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; a running one ends as soon as its worker notices."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "cancel"))

    def pause(self, job_id: str) -> Job:
        """Pause a job; a running one stops at its next checkpoint."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "resume"))

    def retry(self, job_id: str) -> Job:
        """Submit a failed or cancelled job anew; the answer is the new job."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "retry"))

    def attempts(self, job_id: str) -> Iterator[Attempt]:
        """The claims of a job by workers, oldest first."""
        return self._http.pages(Attempt, path_of("cloning-jobs", job_id, "attempts"))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """A job's events as they happen, until it has ended; a broken stream is gone on with.

        Args:
            job_id: The job.
            after: Number of the last event that is known already.
        """
        return follow(self._http, path_of("cloning-jobs", job_id, "events", "stream"), after)

    def history(self, job_id: str) -> Iterator[Event]:
        """What has happened to a job so far, oldest first."""
        return self._http.pages(Event, path_of("cloning-jobs", job_id, "events"))

    def trials(self, job_id: str) -> Iterator[Trial]:
        """The positions a job has tried, oldest first."""
        return self._http.pages(Trial, path_of("cloning-jobs", job_id, "trials"))

    def wait(
        self, job_id: str, on_event: Callable[[Event], object] | None = None, *, progress: Progress | None = None
    ) -> Job:
        """Wait until a job has ended; its `state` says how.

        Args:
            job_id: The job.
            on_event: Told about every event.
            progress: Told the share that is done, 0 to 1, and what was just done.
        """
        for event in self.events(job_id):
            if on_event is not None:
                on_event(event)
            if progress is not None:
                progress(event.progress, event.message)
        return self.get(job_id)


def _body(target: str, source: str, dataset: str, config: CloneConfig) -> dict[str, Any]:
    return {"target": target, "source": source, "dataset": dataset, "config": asdict(config)}
