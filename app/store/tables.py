"""Table of uploads."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.clock import utc_now
from app.db.tables import Base, Owned
from app.store.object_locks import hold_named


class UploadRow(Owned, Base):
    """A file that a client sends: announced, then complete."""

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
    """Key of the object; None: not complete."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    completed_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    """Time of the first use by a version or dataset, which then refers to the object. A used upload is no garbage."""


hold_named(UploadRow)
