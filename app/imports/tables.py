"""Table of imports."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.tables import Base, Document, Owned, Run, one_of
from app.models.tables import ref_of

IMPORT_STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")


class ImportRow(Run, Owned, Base):
    """A network that a worker fetches from its source and adds as a version."""

    __tablename__ = "imports"
    __table_args__ = (one_of("state", IMPORT_STATES), Index(None, "state", "id"))

    source: Mapped[str]
    """One of `app.imports.sources.FORMS`, without secrets."""
    model: Mapped[str]
    """Name of the model; a new name registers a model."""
    spec: Mapped[Document | None]
    """Network of a source that is a bare file of weights."""
    licence: Mapped[str] = mapped_column(default="")
    description: Mapped[str] = mapped_column(default="")
    version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"), index=True)
    version_ref: Mapped[str | None] = ref_of(version_id)  # type: ignore[arg-type]
