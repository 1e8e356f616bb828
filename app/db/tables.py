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
    MetaData,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.db.clock import UtcDateTime, utc_now
from app.db.text import Text

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Document = dict[str, Any]
SHOWN = "shown"
"""Columns of a row that are looked up elsewhere, and only where they are shown."""
DEFAULT = "default"
"""The workspace of everything that was made without a key."""


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """Check that a column of text has one of these values."""
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
    """A row that people can name; only its own workspace sees it, see `app.db.isolation`."""

    workspace: Mapped[str] = mapped_column(default=DEFAULT, server_default=DEFAULT, index=True)


class Archivable:
    """Columns of a row that people can put away, and then remove for good; see `app.db.archive`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    archived_at: Mapped[datetime | None] = mapped_column(index=True)
    purged_at: Mapped[datetime | None]
    """From then on the row only says what there was: what it held is gone."""


class Leased:
    """Columns of a row that one worker at a time works on; see `app.db.leases`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    lease_worker: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    """Fencing token: grows with every claim and never shrinks."""
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    """How many leases have run out."""


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
