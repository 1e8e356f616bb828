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
    """Kind of worker that may take it."""
    size: Mapped[str] = mapped_column(default="small", server_default="small")
    max_seconds: Mapped[int | None]
    """How long one attempt may take."""
    fruitless: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts since a checkpoint was last kept; of `attempts`, those that count against the job."""
    not_before: Mapped[datetime | None]
    """Until then it rests: its last worker could not reach what it needs."""
    announced_at: Mapped[datetime | None]
    """When workers were last told of it."""
    asked_at: Mapped[datetime | None]
    """When its worker was asked to stop."""
    stage: Mapped[str | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    last_seq: Mapped[int] = mapped_column(default=0)
    """Number of the newest event."""
    problem: Mapped[Document | None]
    traceparent: Mapped[str | None]
    """The request that asked for it, if requests are traced."""
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
    """One claim of a job by a worker, from taking it to giving it up."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """The claim's fencing token."""
    worker: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(default=utc_now())
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    outcome: Mapped[str | None]
    """How it ended; None while it runs."""
    reason: Mapped[str] = mapped_column(default="")


class StepRow(Leased, Base):
    """A step of a job that is worked out, or that any worker may work out."""

    __tablename__ = "steps"
    __table_args__ = (UniqueConstraint("job_id", "name"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    name: Mapped[str]
    """Its text, as the library has it."""
    shared: Mapped[bool] = mapped_column(default=False)
    """Whether any worker may take it."""
    digest: Mapped[str | None]
    """Of its state, once there is one."""
    key: Mapped[str | None] = mapped_column(index=True)
    traceparent: Mapped[str | None]
    """What it was shared in, if jobs are traced."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    job: Mapped[JobRow] = relationship(lazy="selectin", viewonly=True)


class EventRow(Base):
    """One line of a job's history; `seq` counts from 1 without gaps."""

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
    """One position tried by a job."""

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
