"""Base classes and shared columns of the tables.

A state is text with a check constraint, so that SQLite and PostgreSQL have the same schema.
The service creates ids, digests and object keys; clients never do.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    MetaData,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.db.clock import UtcDateTime, utc_now
from app.db.text import Text

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Document = dict[str, Any]
SHOWN = "shown"
"""Group of deferred columns that are loaded only for display."""
DEFAULT = "default"
"""Workspace of everything that was created without a key."""


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """Check constraint: a text column has one of these values."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=column)


class Base(DeclarativeBase):
    """Declarative base with a naming convention for constraints."""

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
    """A row of a workspace. Other workspaces do not see it; see `app.db.isolation`."""

    workspace: Mapped[str] = mapped_column(default=DEFAULT, server_default=DEFAULT, index=True)


class Archivable:
    """Columns of a row that can be archived and then purged; see `app.db.archive`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    archived_at: Mapped[datetime | None] = mapped_column(index=True)
    purged_at: Mapped[datetime | None]
    """Time of the purge. Only the row remains as a record."""


class Leased:
    """Columns of a row with a lease; see `app.db.leases`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    lease_worker: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    """Fencing token: increases with every claim."""
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    """Number of expired leases."""

    @property
    def is_waiting(self) -> bool:
        """Whether a worker that looks for rows of this table can claim it, now or later. Jobs and steps have notices.

        Called within a flush: only loaded attributes may be read, with `vars`.
        """
        return False


class Run(Leased):
    """Columns of a row that waits, is worked on by one worker, and ends once; see `app.db.runs`."""

    state: Mapped[str] = mapped_column(default="queued")
    progress: Mapped[float] = mapped_column(default=0.0)
    """Finished share, 0 to 1."""
    message: Mapped[str] = mapped_column(default="")
    problem: Mapped[Document | None]
    not_before: Mapped[datetime | None]
    """It cannot be claimed before this time, because its last worker could not reach the database or the store."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    finished_at: Mapped[datetime | None]

    @property
    def is_waiting(self) -> bool:
        """Whether a worker can claim it, now or later."""
        row = vars(self)
        return row.get("lease_worker") is None and row.get("state") == "queued"


class IdempotencyRow(Owned, Base):
    """Stored answer for a repeated POST."""

    __tablename__ = "idempotency_keys"

    workspace: Mapped[str] = mapped_column(primary_key=True, default=DEFAULT, server_default=DEFAULT)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    status: Mapped[int]
    location: Mapped[str | None]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now(), index=True)
