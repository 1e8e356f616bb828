"""The resource of cloning jobs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pnc_client import pictures
from pnc_client.http import Connected, Http, path_of
from pnc_client.modules import Module, Modules
from pnc_client.schemas import jobs as schemas
from pnc_client.schemas.jobs import Attempt, ClassSearch, Event, Recommendations, Trial, Verdict
from pnc_client.streams import follow
from pnc_core.config import CloneConfig

_PATH = "/v1/cloning-jobs"
Progress = Callable[[float, str], object]
"""Called with the finished share of the job, 0 to 1, and a message for people."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Job(schemas.Job, Connected):
    """One cloning job."""

    @property
    def ended(self) -> bool:
        """Whether the job has succeeded, failed or been cancelled."""
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
        """Wait until the job ends; see `Jobs.wait`."""
        return Jobs(self.http).wait(self.id, on_event, progress=progress)

    def cancel(self) -> "Job":
        """Cancel the job; see `Jobs.cancel`."""
        return Jobs(self.http).cancel(self.id)

    def trials(self) -> Iterator[Trial]:
        """The job's trials of positions, oldest first."""
        return Jobs(self.http).trials(self.id)

    def result(self) -> Module:
        """The module that the job cloned.

        Raises:
            ValueError: the job has not succeeded.
        """
        if self.module is None:
            raise ValueError(
                f"{self.id}: expected a succeeded job, got a job in the state {self.state}; wait until it succeeds"
            )
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
        anyway: bool = False,
    ) -> Job:
        """Submit a job that clones the classes `config.classes` of `source` for `target`.

        Args:
            target: Version that gains classes: `name` (its newest ready version), `name@3` or `name@alias`.
            source: Version that the classes are cloned from.
            dataset: Id of a dataset with images of old and cloned classes.
            config: Classes and parameters of the job.
            device: Device of the workers that may run the job: `cpu`, `cuda`, or `any`.
            max_seconds: Time limit of one attempt, in seconds; None: no limit.
            anyway: Run the job although a network's accuracy on its images is near chance, or although its estimated
                memory exceeds the worker's.

        Raises:
            ApiError: the job is invalid; `errors` lists the faults.
        """
        body = {**_body(target, source, dataset, config), "device": device, "max_seconds": max_seconds}
        if anyway:
            body["anyway"] = True
        return self._http.post(Job, _PATH, body)

    def validate(self, target: str, source: str, dataset: str, config: CloneConfig, *, advice: bool = False) -> Verdict:
        """The faults for which `create` would refuse the job, and the job's estimated cost.

        Args:
            target: Version that gains classes.
            source: Version whose classes are cloned.
            dataset: Id of a dataset.
            config: Classes and parameters.
            advice: Also forecast accuracy and time, which takes seconds.
        """
        body = _body(target, source, dataset, config)
        return self._http.post(Verdict, f"{_PATH}/validate", body, advice="true" if advice else None)

    def classes(self, search: str = "", *, target: str | None = None, most: int = 20) -> ClassSearch:
        """Classes of the newest ready versions of all models.

        Args:
            search: Words that a class's name or other name must hold.
            target: Leave out the classes of this version and of its model.
            most: Most classes in the answer.
        """
        return self._http.get(ClassSearch, "/v1/classes", search=search, target=target, limit=most)

    def recommend(self, target: str, classes: Sequence[str], dataset: str, *, most: int = 8) -> Recommendations:
        """Rank the models that have some classes as sources for a target. Takes up to a minute; nothing is cloned.

        Args:
            target: Version that gains classes.
            classes: Classes to learn.
            dataset: Id of a dataset with images of the target's own classes and of these.
            most: Most sources that are measured.
        """
        body = {"target": target, "classes": list(classes), "dataset": dataset, "most": most}
        return self._http.post(Recommendations, "/v1/recommendations", body)

    def get(self, job_id: str) -> Job:
        """One job."""
        return self._http.get(Job, path_of("cloning-jobs", job_id))

    def list(self, *, state: str | None = None) -> Iterator[Job]:
        """All jobs, newest first; with `state` only jobs in that state."""
        return self._http.pages(Job, _PATH, state=state)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; a running job ends as soon as its worker reads the request."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "cancel"))

    def pause(self, job_id: str) -> Job:
        """Pause a job; a running job stops at its next checkpoint."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        """Resume a paused job from its checkpoint."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "resume"))

    def retry(self, job_id: str) -> Job:
        """Submit a failed or cancelled job again; returns the new job."""
        return self._http.post(Job, path_of("cloning-jobs", job_id, "retry"))

    def attempts(self, job_id: str) -> Iterator[Attempt]:
        """The job's attempts by workers, oldest first."""
        return self._http.pages(Attempt, path_of("cloning-jobs", job_id, "attempts"))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """A job's events as they happen, until the job ends; a broken stream is resumed.

        Args:
            job_id: Id of the job.
            after: Number of the last event that the caller has; 0: none.
        """
        return follow(self._http, path_of("cloning-jobs", job_id, "events", "stream"), after)

    def history(self, job_id: str) -> Iterator[Event]:
        """A job's events so far, oldest first."""
        return self._http.pages(Event, path_of("cloning-jobs", job_id, "events"))

    def trials(self, job_id: str) -> Iterator[Trial]:
        """A job's trials of positions, oldest first."""
        return self._http.pages(Trial, path_of("cloning-jobs", job_id, "trials"))

    def wait(
        self, job_id: str, on_event: Callable[[Event], object] | None = None, *, progress: Progress | None = None
    ) -> Job:
        """Wait until a job ends; its `state` is then `succeeded`, `failed` or `cancelled`.

        Args:
            job_id: Id of the job.
            on_event: Called with each event.
            progress: Called with the finished share, 0 to 1, and a message for people.
        """
        for event in self.events(job_id):
            if on_event is not None:
                on_event(event)
            if progress is not None:
                progress(event.progress, event.message)
        return self.get(job_id)


def _body(target: str, source: str, dataset: str, config: CloneConfig) -> dict[str, Any]:
    return {"target": target, "source": source, "dataset": dataset, "config": asdict(config)}
