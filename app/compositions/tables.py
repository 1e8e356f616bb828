"""Tables of compositions."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.tables import Base, Document, Owned, Run, one_of
from app.models.tables import ref_of
from app.modules.tables import ModuleRow
from app.store.object_locks import hold_named

COMPOSITION_STATES = ("queued", "running", "cancelling", "ready", "failed", "cancelled")
ENDED = ("ready", "failed", "cancelled")
HEADS = ("affine", "joint", "ridge")


class CompositionRow(Run, Owned, Base):
    """A composition that a worker fits on the images of a dataset."""

    __tablename__ = "compositions"
    __table_args__ = (
        one_of("state", COMPOSITION_STATES),
        one_of("head", HEADS),
        Index(None, "state", "id"),
        Index(None, "target_version_id", "modules_digest"),
    )

    target_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    head: Mapped[str]
    keep_anyway: Mapped[bool] = mapped_column(default=False)
    modules_digest: Mapped[str]
    """SHA-256 of the sorted ids of its modules: equal sets have equal digests."""
    manifest: Mapped[Document | None] = mapped_column(deferred=True)
    """As in the file, without the networks' specifications; loaded only on access."""
    digest: Mapped[str | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    key: Mapped[str | None] = mapped_column(index=True)
    """Key of its file in the store; None: it is not ready, or it was deleted."""
    deleted_at: Mapped[datetime | None]
    members: Mapped[list["CompositionModuleRow"]] = relationship(
        lazy="selectin", order_by="CompositionModuleRow.module_id"
    )
    target_ref: Mapped[str] = ref_of(target_version_id)


class CompositionModuleRow(Base):
    """One module of a composition."""

    __tablename__ = "composition_modules"

    composition_id: Mapped[str] = mapped_column(ForeignKey("compositions.id"), primary_key=True)
    module_id: Mapped[str] = mapped_column(ForeignKey("modules.id"), primary_key=True, index=True)
    module: Mapped[ModuleRow] = relationship(lazy="selectin")


hold_named(CompositionRow)
