"""Tables: the zoo's records.

States are text with a check, so that the schema is the same on SQLite and PostgreSQL.
Ids, digests and object keys are made by the service, never by a client.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    cast,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from app.zoo.clock import UtcDateTime, utc_now
from app.zoo.holding import hold_named
from app.zoo.text import Text

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Document = dict[str, Any]
SHOWN = "shown"
"""Columns of a row that are looked up elsewhere, and only where they are shown."""
DEFAULT = "default"
"""The workspace of everything that was made without a key."""

VERSION_STATUSES = ("validating", "ready", "rejected")
_AT_WORK = ("validating", "queued", "running", "pausing", "paused", "cancelling")
JOB_STATES = (*_AT_WORK, "succeeded", "failed", "cancelled")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=column)


class Base(DeclarativeBase):
    """Declarative base with stable constraint names."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        str: Text(),
        datetime: UtcDateTime(),
        Document: Json,
        list[str]: Json,
        dict[str, int]: Json,
    }


class Owned:
    """A row that people can name; only its own workspace sees it, see `app.zoo.isolation`."""

    workspace: Mapped[str] = mapped_column(default=DEFAULT, server_default=DEFAULT, index=True)


class Archivable:
    """Columns of a row that people can put away, and then remove for good; see `app.zoo.archive`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    archived_at: Mapped[datetime | None] = mapped_column(index=True)
    purged_at: Mapped[datetime | None]
    """From then on the row only says what there was: what it held is gone."""


class Leased:
    """Columns of a row that one worker at a time works on; see `app.zoo.leases`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    lease_worker: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    """Fencing token: grows with every claim and never shrinks."""
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    """How many leases have run out."""


class ModelRow(Archivable, Owned, Base):
    """A registered network, as a name for its versions."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("workspace", "name"),)

    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    last_version: Mapped[int] = mapped_column(default=0)
    clonable: Mapped[list[str] | None] = mapped_column(Json)
    """Classes that jobs may clone from it; none: all of them."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    aliases: Mapped[list["AliasRow"]] = relationship(lazy="selectin", order_by="AliasRow.alias", viewonly=True)


class VersionRow(Leased, Archivable, Owned, Base):
    """One immutable set of weights with everything needed to rebuild the network."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        _one_of("status", VERSION_STATUSES),
        Index(None, "status", "id"),
    )

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    status: Mapped[str] = mapped_column(default="validating")
    spec: Mapped[Document]
    licence: Mapped[str] = mapped_column(default="")
    digest: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(index=True)
    fingerprint: Mapped[str | None]
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    accuracy: Mapped[float | None]
    """Share of images that it names right, once a job has measured it; see `app.zoo.models.note_accuracy`."""
    accuracy_images: Mapped[int | None]
    accuracy_dataset: Mapped[str | None]
    """Id of the dataset that these images are from; it may be purged by now."""
    problem: Mapped[Document | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    model: Mapped[ModelRow] = relationship(lazy="selectin")

    @property
    def ref(self) -> str:
        """The name people use: `mnist-low@3`."""
        return f"{self.model.name}@{self.number}"


def _ref_of(version_id: Mapped[str]) -> Mapped[str]:
    """`VersionRow.ref` of a version that a row names, without the version: two rows looked up, nothing joined."""
    version, model = VersionRow.__table__.alias(), ModelRow.__table__.alias()
    ref = model.c.name + "@" + cast(version.c.number, String)
    found = select(ref).where(version.c.id == version_id, model.c.id == version.c.model_id).scalar_subquery()
    return column_property(found, deferred=True, group=SHOWN, expire_on_flush=False)


class AliasRow(Base):
    """A movable name of a version, such as `production`."""

    __tablename__ = "aliases"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now(), onupdate=utc_now())
    version: Mapped[VersionRow] = relationship(lazy="selectin")


class UploadRow(Owned, Base):
    """A file on its way in: announced, then complete."""

    __tablename__ = "uploads"
    __table_args__ = (
        Index(
            "ix_uploads_unused",
            "completed_at",
            postgresql_where=text("used_at IS NULL"),
            sqlite_where=text("used_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str]
    key: Mapped[str | None] = mapped_column(index=True)
    """Where the object lies, once complete."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    completed_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    """When something was first made of it: from then on that holds the object, and the upload is not garbage."""


class DatasetRow(Archivable, Owned, Base):
    """Images in one Parquet file."""

    __tablename__ = "datasets"

    name: Mapped[str]
    digest: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(index=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    classes: Mapped[list[str]]
    """Class names in the order of the labels; empty: the images have none."""
    counts: Mapped[dict[str, int]]
    """Images of each class."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


class JobRow(Leased, Owned, Base):
    """One cloning job."""

    __tablename__ = "jobs"
    __table_args__ = (_one_of("state", JOB_STATES), Index(None, "state", "id"))

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
    module: Mapped["ModuleRow | None"] = relationship(back_populates="job", lazy="selectin", viewonly=True)
    target_ref: Mapped[str] = _ref_of(target_version_id)
    source_ref: Mapped[str] = _ref_of(source_version_id)


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


class ModuleRow(Archivable, Owned, Base):
    """What a job cloned; a job has at most one."""

    __tablename__ = "modules"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    target_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    source_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    target_fingerprint: Mapped[str] = mapped_column(index=True)
    classes: Mapped[list[str]]
    manifest: Mapped[Document]
    evidence: Mapped[Document | None] = mapped_column(deferred=True)
    """Matrices over the images that the job held out; only read where it is shown."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    job: Mapped[JobRow] = relationship(back_populates="module", viewonly=True)
    target_version: Mapped[VersionRow] = relationship(foreign_keys=target_version_id, lazy="selectin")
    source_version: Mapped[VersionRow] = relationship(foreign_keys=source_version_id, lazy="selectin")
    bundles: Mapped[list["BundleRow"]] = relationship(lazy="selectin", order_by="BundleRow.payload")
    target_ref: Mapped[str] = _ref_of(target_version_id)
    source_ref: Mapped[str] = _ref_of(source_version_id)


class BundleRow(Base):
    """One file of a module."""

    __tablename__ = "bundles"
    __table_args__ = (_one_of("payload", ("thin", "full")),)

    module_id: Mapped[str] = mapped_column(ForeignKey("modules.id"), primary_key=True)
    payload: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(index=True)


class DeploymentRow(Owned, Base):
    """A target served under a name. Removed ones stay, so that generations never repeat."""

    __tablename__ = "deployments"
    __table_args__ = (UniqueConstraint("workspace", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    generation: Mapped[int] = mapped_column(default=0)
    """Number of the revision that is wanted."""
    observed_generation: Mapped[int | None]
    """Number of the revision that the serving process last worked on."""
    observed_problem: Mapped[Document | None]
    """Why that revision is not served."""
    observed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    deleted_at: Mapped[datetime | None] = mapped_column(index=True)


class RevisionRow(Base):
    """What a deployment serves at one generation; immutable but for `refused`."""

    __tablename__ = "revisions"

    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    refused: Mapped[bool] = mapped_column(default=False)
    """The serving process would not have it."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    version: Mapped[VersionRow] = relationship(lazy="selectin")
    attachments: Mapped[list["AttachmentRow"]] = relationship(lazy="selectin", order_by="AttachmentRow.ordinal")


class AttachmentRow(Base):
    """One module of one revision, in the order of attaching."""

    __tablename__ = "attachments"
    __table_args__ = (
        ForeignKeyConstraint(
            ["deployment_id", "generation"], ["revisions.deployment_id", "revisions.generation"], ondelete="CASCADE"
        ),
    )

    deployment_id: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    module_id: Mapped[str] = mapped_column(ForeignKey("modules.id"), primary_key=True, index=True)
    ordinal: Mapped[int]
    module: Mapped[ModuleRow] = relationship(lazy="selectin")


class ReplicaRow(Base):
    """A serving process, and what it serves."""

    __tablename__ = "replicas"

    id: Mapped[str] = mapped_column(primary_key=True)
    observed: Mapped[Document]
    """By deployment name: the generation it last worked on, and why it does not serve that."""
    reported_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime] = mapped_column(default=utc_now())


class IdempotencyRow(Owned, Base):
    """The answer that a repeated POST gets again."""

    __tablename__ = "idempotency_keys"

    workspace: Mapped[str] = mapped_column(primary_key=True, default=DEFAULT, server_default=DEFAULT)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    status: Mapped[int]
    location: Mapped[str | None]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now(), index=True)


OWNERS = (BundleRow, DatasetRow, StepRow, UploadRow, VersionRow)
"""Tables whose rows name objects."""
for _owner in OWNERS:
    hold_named(_owner)
