"""Tables of deployments."""

from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.clock import utc_now
from app.db.tables import Base, Document, Owned
from app.models.tables import VersionRow
from app.modules.tables import ModuleRow


class DeploymentRow(Owned, Base):
    """A target served under a name. A deleted deployment keeps its row, so that its generations never repeat."""

    __tablename__ = "deployments"
    __table_args__ = (UniqueConstraint("workspace", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    generation: Mapped[int] = mapped_column(default=0)
    """Number of the desired revision."""
    observed_generation: Mapped[int | None]
    """Number of the revision that the serving process last reported on."""
    observed_problem: Mapped[Document | None]
    """Why that revision is not served; None: it is served."""
    observed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    deleted_at: Mapped[datetime | None] = mapped_column(index=True)


class RevisionRow(Base):
    """The target and modules of a deployment at one generation; only `refused` ever changes."""

    __tablename__ = "revisions"

    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    refused: Mapped[bool] = mapped_column(default=False)
    """Whether the serving process refused this revision."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    version: Mapped[VersionRow] = relationship(lazy="selectin")
    attachments: Mapped[list["AttachmentRow"]] = relationship(lazy="selectin", order_by="AttachmentRow.ordinal")


class AttachmentRow(Base):
    """One module of one revision."""

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
    """Place of the module in the order of attachment, from 0."""
    module: Mapped[ModuleRow] = relationship(lazy="selectin")


class ReplicaRow(Base):
    """A serving process and its report about each deployment."""

    __tablename__ = "replicas"

    id: Mapped[str] = mapped_column(primary_key=True)
    observed: Mapped[Document]
    """By deployment name: the generation that it last tried to serve, and the problem if it does not serve it."""
    reported_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime] = mapped_column(default=utc_now())
