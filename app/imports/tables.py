"""Table of imports."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.clock import utc_now
from app.db.tables import Base, Document, Leased, Owned, one_of
from app.models.tables import ref_of

IMPORT_STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")


class ImportRow(Leased, Owned, Base):
    """A network that a worker fetches from its source and adds as a version."""

    __tablename__ = "imports"
    __table_args__ = (one_of("state", IMPORT_STATES), Index(None, "state", "id"))

    state: Mapped[str] = mapped_column(default="queued")
    source: Mapped[str]
    """One of `app.imports.sources.FORMS`, without secrets."""
    model: Mapped[str]
    """Name of the model; a new name registers a model."""
    spec: Mapped[Document | None]
    """Network of a source that is a bare file of weights."""
    licence: Mapped[str] = mapped_column(default="")
    description: Mapped[str] = mapped_column(default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    message: Mapped[str] = mapped_column(default="")
    problem: Mapped[Document | None]
    version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"), index=True)
    not_before: Mapped[datetime | None]
    """It cannot be claimed before this time, because its last worker could not reach the database or the store."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    finished_at: Mapped[datetime | None]
    version_ref: Mapped[str | None] = ref_of(version_id)  # type: ignore[arg-type]

    @property
    def is_waiting(self) -> bool:
        """Whether a worker can claim it, now or later."""
        row = vars(self)
        return row.get("lease_worker") is None and row.get("state") == "queued"
