"""HTTP API of cloning jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import BeforeValidator

from app.api.documented import documented
from app.api.requests import DoOnce, ListOf, ListQuery, OpenZoo, ReadSession, Reply
from app.api.scopes import ScopedRoute, needs
from app.errors import Invalid
from app.jobs import attempts, events
from app.jobs import service as jobs
from app.jobs.asking.advising import advised
from app.jobs.service import JobRequest, Validation
from app.process.threads import LONG, READS
from app.zoo import Zoo
from pnc_client.schemas import jobs as wire
from pnc_client.schemas.shapes import Page, storable

router = APIRouter(prefix="/v1/cloning-jobs", tags=["cloning jobs"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of a cloning job.", examples=["job_019aa3b0c1d27f0e9d5c6b7a8f901234"])]
Wanted = Annotated[JobRequest, BeforeValidator(storable), Body(openapi_examples={"digits": wire.JOB_EXAMPLE})]


class JobsQuery(ListQuery):
    """Query of the list of jobs."""

    state: wire.State | None = None
    """Only jobs in this state."""


@router.post("", response_model=wire.Job, status_code=201)
@needs("jobs")
def create_job(body: Wanted, once: DoOnce) -> Response:
    """Submit a job that clones classes of a source into a module for a target. Its events show the progress.

    The name of a model without a version means its newest ready version. If no version is ready, it means the newest
    version that is not rejected, and the job waits until that version is ready.
    """

    def work(session: Any) -> Reply:
        row = jobs.submit(session, body)
        return Reply(wire.Job.of(row), location=f"/v1/cloning-jobs/{row.id}")

    return once(work)


@router.post("/validate", response_model=wire.Verdict)
@needs("read")
async def validate_job(
    body: Wanted,
    zoo: OpenZoo,
    advice: Annotated[bool, Query(description="Also forecast accuracy and time, which takes seconds.")] = False,
) -> Any:
    """Check a job without submitting it: the problems that would refuse it, an estimate of its cost, and a forecast."""
    found = await READS.run(_validated, zoo, body)
    answer = {"valid": not found.problems, **found._asdict()}
    if advice and not found.problems:
        answer |= await LONG.run(_forecast, zoo, body)
    return answer


def _validated(zoo: Zoo, body: JobRequest) -> Validation:
    with zoo.database.read() as session:
        return jobs.validate(session, body)


def _forecast(zoo: Zoo, body: JobRequest) -> dict[str, Any]:
    try:
        return {"advice": advised(zoo, body)}
    except Invalid as error:
        return {"no_advice": str(error)}


@router.get("", response_model=Page[wire.Job])
@needs("read")
def list_jobs(session: ReadSession, query: Annotated[JobsQuery, Query()]) -> Any:
    """Cloning jobs, newest first."""
    found = jobs.list_jobs(session, query.window(), state=query.state)
    return {**vars(found), "data": [wire.Job.of(row) for row in found.data]}


@router.get("/{job}", response_model=wire.Job, responses=documented(404))
@needs("read")
def get_job(job: Id, session: ReadSession) -> Any:
    """One cloning job."""
    return wire.Job.of(jobs.get(session, job, *jobs.AS_SHOWN))


@router.post(
    "/{job}/cancel",
    response_model=wire.Job,
    responses={202: {"model": wire.Job, "description": "The job's worker will stop"}, **documented(404, 409)},
)
@needs("jobs")
def cancel_job(job: Id, once: DoOnce) -> Response:
    """Cancel a job: a waiting job at once (200), a running job as soon as its worker stops (202)."""

    def work(session: Any) -> Reply:
        row = jobs.cancel(session, job)
        return Reply(wire.Job.of(row), status=202 if row.state == "cancelling" else 200)

    return once(work)


@router.post(
    "/{job}/pause",
    response_model=wire.Job,
    responses={202: {"model": wire.Job, "description": "The job's worker will stop"}, **documented(404, 409)},
)
@needs("jobs")
def pause_job(job: Id, once: DoOnce) -> Response:
    """Pause a job: a waiting job at once (200), a running job at its next checkpoint (202)."""

    def work(session: Any) -> Reply:
        row = jobs.pause(session, job)
        return Reply(wire.Job.of(row), status=202 if row.state == "pausing" else 200)

    return once(work)


@router.post("/{job}/resume", response_model=wire.Job, responses=documented(404, 409))
@needs("jobs")
def resume_job(job: Id, once: DoOnce) -> Response:
    """Resume a paused job from its last checkpoint."""
    return once(lambda session: Reply(wire.Job.of(jobs.resume(session, job)), status=200))


@router.post("/{job}/retry", response_model=wire.Job, status_code=201, responses=documented(404, 409))
@needs("jobs")
def retry_job(job: Id, once: DoOnce) -> Response:
    """Submit a failed or cancelled job again, as a new job."""

    def work(session: Any) -> Reply:
        row = jobs.retry(session, job)
        return Reply(wire.Job.of(row), location=f"/v1/cloning-jobs/{row.id}")

    return once(work)


@router.get("/{job}/attempts", response_model=Page[wire.Attempt], responses=documented(404))
@needs("read")
def list_attempts(job: Id, session: ReadSession, query: ListOf) -> Any:
    """A job's attempts, oldest first. Each claim of the job by a worker is an attempt."""
    return attempts.list_attempts(session, jobs.known(session, job), query.window())


@router.get("/{job}/events", response_model=Page[wire.Event], responses=documented(404))
@needs("read")
def list_events(job: Id, session: ReadSession, query: ListOf) -> Any:
    """A job's events, oldest first."""
    return events.list_events(session, jobs.known(session, job), query.window())


@router.get("/{job}/trials", response_model=Page[wire.Trial], responses=documented(404))
@needs("read")
def list_trials(job: Id, session: ReadSession, query: ListOf) -> Any:
    """A job's trials, oldest first. A trial measures one position."""
    return events.list_trials(session, jobs.known(session, job), query.window())
