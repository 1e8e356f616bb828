"""Cloning jobs for callers of the API: submit, read, pause, resume, cancel, retry. Workers use `app.jobs.runs`."""

from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, lazyload, undefer_group
from sqlalchemy.orm.interfaces import ORMOption

from app.access import workspaces
from app.datasets import oddities
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.db import archive, clock
from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.db.tables import SHOWN
from app.errors import Invalid, InvalidTransition, NotFound, Problem
from app.jobs import events, notifier, rules, states
from app.jobs.rules import Estimate
from app.jobs.tables import JobRow
from app.models import service as models
from app.models.tables import VersionRow
from app.modules.tables import ModuleRow
from app.process import tracing
from pnc_client.schemas.jobs import Device
from pnc_core.config import CloneConfig
from pnc_core.module.manifest import build

MAX_SECONDS = 30 * 24 * 3600
"""Highest allowed `max_seconds`: 30 days."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A request to clone classes of a source into a module for a target."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}

    target: str
    """Version that gains classes: `name@3`, `name@alias`, or `name` for the newest ready version."""
    source: str
    """Version whose classes are cloned, in the same format."""
    dataset: str
    """Id of a dataset with images of the cloned classes and of classes of the target."""
    config: CloneConfig
    """Classes to clone, and parameters of the method."""
    device: Device = "any"
    """Workers that may run the job: `cpu`, `cuda`, or `any`."""
    max_seconds: Annotated[int, Field(ge=1, le=MAX_SECONDS)] | None = None
    """Time limit of an attempt; an attempt that takes longer fails the job. None: no limit."""
    anyway: bool = False
    """Run the job although a network's accuracy on its images is near chance, or its estimated memory too large."""


AS_SHOWN = (lazyload("*"), undefer_group(SHOWN), joinedload(JobRow.module).load_only(ModuleRow.id).lazyload("*"))
"""Loads a job with the references and the module that an answer shows, in one query."""


@dataclass(frozen=True)
class _Parts:
    target: VersionRow
    source: VersionRow
    dataset: DatasetRow


def submit(session: Session, request: JobRequest) -> JobRow:
    """Submit a job. It is `validating` until both versions are ready, then `queued`.

    Raises:
        Invalid: a version or the dataset does not exist, or the job breaks a rule of `app.jobs.rules`.
        NotFound: a version or the dataset was purged during this transaction.
        QuotaExceeded: the workspace has reached its limit of jobs.
    """
    parts = _parts(session, request)
    archive.hold(session, *{row.id: row for row in (parts.target, parts.source, parts.dataset)}.values())
    asked = rules.named(parts.source, request.config)
    problems = rules.check(parts.target, parts.source, parts.dataset, asked)
    if problems:
        raise Invalid(problems)
    workspaces.check_jobs(session)
    ready = parts.target.status == parts.source.status == "ready"
    job = JobRow(
        id=new_id("job"),
        state="queued" if ready else "validating",
        target_version=parts.target,
        source_version=parts.source,
        dataset=parts.dataset,
        config=asdict(asked.config),
        device=request.device,
        size=rules.size_of(parts.target, parts.source, parts.dataset, asked.config),
        max_seconds=request.max_seconds,
        anyway=request.anyway,
        traceparent=tracing.traceparent(),
        module=None,
        last_seq=0,
        progress=0.0,
    )
    session.add(job)
    session.flush()
    events.emit(session, job, "state", "queued" if ready else "waiting until both versions are ready")
    if ready:
        notifier.announce_job(session, job)
    return job


class Validation(NamedTuple):
    """The result of checking a job without submitting it."""

    problems: list[Problem]
    """Reasons for which `submit` would refuse the job."""
    estimate: Estimate | None
    """Estimated cost; None if a version or the dataset does not exist."""
    warnings: list[dict[str, str]]
    """Oddities of the images; empty if no inspection has found any, or a version or the dataset does not exist."""


def validate(session: Session, request: JobRequest) -> Validation:
    """Check a job; nothing is written."""
    try:
        parts = _parts(session, request)
    except Invalid as error:
        return Validation(error.problems, None, [])
    target, source, dataset = parts.target, parts.source, parts.dataset
    asked = rules.named(source, request.config)
    problems = rules.check(target, source, dataset, asked)
    small = (
        o for row in (target, source) for o in oddities.too_small(dataset.findings, row.ref, row.spec["input_size"])
    )
    warnings = [*(dataset.findings or {}).get("warnings", []), *small]
    return Validation(problems, rules.estimate(target, source, dataset, asked.config), warnings)


@dataclass(frozen=True)
class Resolved:
    """A request without problems, with the ids of its rows."""

    target: str
    source: str
    dataset: str
    config: CloneConfig
    """With the names of classes that the source has."""


def resolved(session: Session, request: JobRequest) -> Resolved:
    """The rows of a request.

    Raises:
        Invalid: `submit` would refuse the request.
    """
    parts = _parts(session, request)
    asked = rules.named(parts.source, request.config)
    problems = rules.check(parts.target, parts.source, parts.dataset, asked)
    if problems:
        raise Invalid(problems)
    return Resolved(parts.target.id, parts.source.id, parts.dataset.id, asked.config)


def list_jobs(session: Session, window: Window, *, state: str | None = None) -> Page[JobRow]:
    """Jobs, newest first, in one state or in any."""
    query = select(JobRow).options(*AS_SHOWN)
    if state is not None:
        query = query.where(JobRow.state == state)
    return page(session, query, JobRow.id, str, window)


def get(session: Session, job_id: str, *options: ORMOption) -> JobRow:
    """One job.

    Args:
        session: A session of the workspace.
        job_id: Id of the job.
        *options: Loader options, e.g. `AS_SHOWN`; by default all related rows are loaded.

    Raises:
        NotFound: there is no job with this id.
    """
    job = session.get(JobRow, job_id, options=options)
    if job is None:
        raise NotFound(f"expected a cloning job, got none with id {job_id!r:.80}; see GET /v1/cloning-jobs")
    return job


def known(session: Session, job_id: str) -> str:
    """Check that a job exists, and return its id.

    Raises:
        NotFound: there is no job with this id.
    """
    return get(session, job_id, lazyload("*")).id


def cancel(session: Session, job_id: str) -> JobRow:
    """Cancel a job: a waiting job at once, a running job as soon as its worker stops.

    Cancelling it again changes nothing.

    Raises:
        NotFound: there is no job with this id.
        InvalidTransition: the job has succeeded or failed.
    """
    job = _locked(session, job_id)
    if job.state in ("running", "pausing"):
        job.asked_at = clock.now(session)
        states.move(session, job, "cancelling", "cancellation requested")
    elif job.state not in ("cancelling", "cancelled"):
        states.move(session, job, "cancelled", "cancelled while waiting")
    return job


def pause(session: Session, job_id: str) -> JobRow:
    """Pause a job: a waiting job at once, a running job when its worker has written a checkpoint.

    Pausing it again changes nothing.

    Raises:
        NotFound: there is no job with this id.
        InvalidTransition: the job has ended, or is being cancelled.
    """
    job = _locked(session, job_id)
    if job.state == "running":
        job.asked_at = clock.now(session)
        states.move(session, job, "pausing", "pause requested")
    elif job.state not in ("pausing", "paused"):
        states.move(session, job, "paused", "paused while waiting")
    return job


def resume(session: Session, job_id: str) -> JobRow:
    """Resume a paused job from its last checkpoint. Resuming it again changes nothing.

    Raises:
        NotFound: there is no job with this id.
        InvalidTransition: the job has ended, or is being cancelled.
    """
    job = _locked(session, job_id)
    if job.state == "pausing":
        states.move(session, job, "running", "pause withdrawn")
    elif job.state not in ("validating", "queued", "running"):
        ready = job.target_version.status == job.source_version.status == "ready"
        message = "resumed" if ready else "resumed; waiting until both versions are ready"
        states.move(session, job, "queued" if ready else "validating", message)
    return job


def retry(session: Session, job_id: str) -> JobRow:
    """Submit a new job with the request of a failed or cancelled job.

    Raises:
        NotFound: there is no job with this id.
        InvalidTransition: the job has not ended, or has succeeded.
        Invalid: the request breaks a rule now, for example because a version was archived.
    """
    job = get(session, job_id)
    if job.state not in ("failed", "cancelled"):
        raise InvalidTransition(
            f"{job.id}: expected a job that failed or was cancelled, got one that is {job.state}; "
            "submit another with POST /v1/cloning-jobs"
        )
    request = JobRequest(
        target=job.target_ref,
        source=job.source_ref,
        dataset=job.dataset_id,
        config=config_of(job),
        device=job.device,  # type: ignore[arg-type]
        max_seconds=job.max_seconds,
        anyway=job.anyway,
    )
    return submit(session, request)


def _locked(session: Session, job_id: str) -> JobRow:
    job = get(session, job_id, lazyload("*"))
    session.flush()
    session.refresh(job, with_for_update=True)
    return job


def config_of(job: JobRow) -> CloneConfig:
    """The job's parameters as the library's configuration."""
    return build(CloneConfig, job.config, job.id)


def _parts(session: Session, request: JobRequest) -> _Parts:
    """The rows that a request refers to.

    Raises:
        Invalid: a version or the dataset does not exist; the error names all that are missing.
    """
    faults: list[Problem] = []
    found: dict[str, VersionRow] = {}
    for name in ("target", "source"):
        try:
            found[name] = models.resolve(session, getattr(request, name))
        except NotFound as error:
            faults.append(Problem(f"/{name}", error.code, str(error)))
    dataset: DatasetRow | None = None
    try:
        dataset = datasets.get(session, request.dataset)
    except NotFound as error:
        faults.append(Problem("/dataset", error.code, str(error)))
    if faults or dataset is None:
        raise Invalid(faults)
    return _Parts(found["target"], found["source"], dataset)
