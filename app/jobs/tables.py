"""Tables of cloning jobs."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.datasets.tables import DatasetRow
from app.db.clock import utc_now
from app.db.tables import Base, Document, Leased, Owned, one_of
from app.models.tables import VersionRow, ref_of
from app.modules.tables import ModuleRow
from app.store.object_locks import hold_named

AT_WORK = ("validating", "queued", "running", "pausing", "paused", "cancelling")
JOB_STATES = (*AT_WORK, "succeeded", "failed", "cancelled")


class JobRow(Leased, Owned, Base):
    """One cloning job."""

    __tablename__ = "jobs"
    __table_args__ = (one_of("state", JOB_STATES), Index(None, "state", "id"))

    state: Mapped[str]
    target_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    source_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    config: Mapped[Document]
    device: Mapped[str] = mapped_column(default="any", server_default="any")
    """Workers that may run the job: `cpu`, `cuda`, or `any`."""
    size: Mapped[str] = mapped_column(default="small", server_default="small")
    """`small` or `large`, see `app.jobs.rules.size_of`."""
    max_seconds: Mapped[int | None]
    """Time limit of one attempt; None: no limit."""
    anyway: Mapped[bool] = mapped_column(default=False, server_default="0")
    """Whether the job runs although a network guesses on its images, or its estimated memory exceeds the worker's."""
    fruitless: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of attempts that died since the last checkpoint."""
    not_before: Mapped[datetime | None]
    """The job cannot be claimed before this time, because its last worker could not reach a service."""
    announced_at: Mapped[datetime | None]
    """Time of the last notice to workers."""
    asked_at: Mapped[datetime | None]
    """Time at which the job's worker was asked to stop."""
    stage: Mapped[str | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    last_seq: Mapped[int] = mapped_column(default=0)
    """Number of the newest event."""
    problem: Mapped[Document | None]
    traceparent: Mapped[str | None]
    """W3C trace context of the request that submitted the job, if requests are traced."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    target_version: Mapped[VersionRow] = relationship(foreign_keys=target_version_id, lazy="selectin")
    source_version: Mapped[VersionRow] = relationship(foreign_keys=source_version_id, lazy="selectin")
    dataset: Mapped[DatasetRow] = relationship(lazy="selectin")
    module: Mapped[ModuleRow | None] = relationship(lazy="selectin", viewonly=True)
    target_ref: Mapped[str] = ref_of(target_version_id)
    source_ref: Mapped[str] = ref_of(source_version_id)


class AttemptRow(Base):
    """One claim of a job by a worker."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """Fencing token of the claim's lease."""
    worker: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(default=utc_now())
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    outcome: Mapped[str | None]
    """The job's new state, `released`, or a constant of `app.jobs.attempts`; None while the attempt runs."""
    reason: Mapped[str] = mapped_column(default="")


class StepRow(Leased, Base):
    """A step of a job: finished, or shared among workers."""

    __tablename__ = "steps"
    __table_args__ = (UniqueConstraint("job_id", "name"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    name: Mapped[str]
    """Name of the step in the library."""
    shared: Mapped[bool] = mapped_column(default=False)
    """Whether any worker may claim the step."""
    digest: Mapped[str | None]
    """Digest of the step's state; None until the step is finished."""
    key: Mapped[str | None] = mapped_column(index=True)
    """Key of the step's state in the store; None until the step is finished."""
    traceparent: Mapped[str | None]
    """W3C trace context of the attempt that shared the step, if jobs are traced."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    job: Mapped[JobRow] = relationship(lazy="selectin", viewonly=True)


class EventRow(Base):
    """One event of a job; `seq` counts from 1 without gaps."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    state: Mapped[str]
    stage: Mapped[str | None]
    progress: Mapped[float]
    message: Mapped[str]
    data: Mapped[Document]
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


class TrialRow(Base):
    """One trial of a position by a job."""

    __tablename__ = "trials"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    attempt: Mapped[int]
    target_position: Mapped[str]
    source_position: Mapped[str]
    round: Mapped[int]
    score: Mapped[float]
    old: Mapped[float | None]
    new: Mapped[float | None]
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    seconds: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


hold_named(StepRow)
