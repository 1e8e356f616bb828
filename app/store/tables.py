"""Table of uploads."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.clock import utc_now
from app.db.tables import Base, Owned
from app.store.object_locks import hold_named


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


hold_named(UploadRow)
