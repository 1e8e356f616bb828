"""Tables of deployments."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.compositions.tables import CompositionRow
from app.db.clock import utc_now
from app.db.tables import Base, Document, Owned, one_of
from app.models.tables import VersionRow
from app.modules.tables import ModuleRow

CANARY_MODES = ("canary", "shadow")
"""canary: the second set of modules answers a share of the requests. shadow: it runs on a share, and answers none."""


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
    """The target, modules, composition and canary of a deployment at one generation; only `refused` ever changes."""

    __tablename__ = "revisions"

    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    refused: Mapped[bool] = mapped_column(default=False)
    """Whether the serving process refused this revision."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    composition_id: Mapped[str | None] = mapped_column(ForeignKey("compositions.id"), index=True)
    """The composition of the attached modules; None: they have plain scales."""
    version: Mapped[VersionRow] = relationship(lazy="selectin")
    attachments: Mapped[list["AttachmentRow"]] = relationship(lazy="selectin", order_by="AttachmentRow.ordinal")
    canary: Mapped["CanaryRevisionRow | None"] = relationship(lazy="selectin")
    composition: Mapped[CompositionRow | None] = relationship(lazy="select")


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


class CanaryRow(Base):
    """A second set of modules of a deployment, compared with one set of attached modules, and the counts of that.

    Another set on either side makes a new row. Another share or mode keeps the row and its counts.
    """

    __tablename__ = "canaries"

    id: Mapped[str] = mapped_column(primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    main_requests: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Requests that the attached modules answered."""
    canary_requests: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Requests that the second set answered."""
    agreed: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Compared images for which both sets predict the same class."""
    differed: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Compared images for which the sets predict different classes."""
    logit_difference: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """Sum over the compared images of the largest absolute difference of a logit of the target's classes."""
    dropped: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Requests that were not compared because too many comparisons waited."""
    failed: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Requests whose comparison failed."""
    members: Mapped[list["CanaryModuleRow"]] = relationship(lazy="selectin", order_by="CanaryModuleRow.ordinal")


class CanaryModuleRow(Base):
    """One module of a canary."""

    __tablename__ = "canary_modules"

    canary_id: Mapped[str] = mapped_column(ForeignKey("canaries.id"), primary_key=True)
    module_id: Mapped[str] = mapped_column(ForeignKey("modules.id"), primary_key=True, index=True)
    ordinal: Mapped[int]
    """Place of the module in the order of attachment, from 0."""
    module: Mapped[ModuleRow] = relationship(lazy="selectin")


class CanaryRevisionRow(Base):
    """The canary of one revision: its mode and its share of the requests."""

    __tablename__ = "canary_revisions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["deployment_id", "generation"], ["revisions.deployment_id", "revisions.generation"], ondelete="CASCADE"
        ),
        one_of("mode", CANARY_MODES),
    )

    deployment_id: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    canary_id: Mapped[str] = mapped_column(ForeignKey("canaries.id"), index=True)
    mode: Mapped[str]
    share: Mapped[float]
    """Share of the requests that the mode applies to, 0 to 1."""
    canary: Mapped[CanaryRow] = relationship(lazy="selectin")


class ReplicaRow(Base):
    """A serving process and its report about each deployment."""

    __tablename__ = "replicas"

    id: Mapped[str] = mapped_column(primary_key=True)
    observed: Mapped[Document]
    """By deployment name: the generation that it last tried to serve, and the problem if it does not serve it."""
    reported_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime] = mapped_column(default=utc_now())
