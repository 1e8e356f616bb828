"""Tables of who may do what: workspaces, keys, and what was done with them."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.clock import utc_now
from app.db.tables import Base, Owned


class WorkspaceRow(Base):
    """Whose things are kept apart from all others', and how much of everything they may be."""

    __tablename__ = "workspaces"

    name: Mapped[str] = mapped_column(primary_key=True)
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of uploads, models, datasets and bundles together; none: as many as there is room for."""
    max_jobs: Mapped[int | None]
    """Jobs that have not ended."""
    requests_per_minute: Mapped[int | None]
    """Of each key, at each process of the API."""
    require_signature: Mapped[bool] = mapped_column(default=False, server_default="0")
    """Deployments take only modules that a trusted key has signed."""
    retention_days: Mapped[int | None]
    """After so many days what is archived is purged; none: only when somebody asks for it."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


class KeyRow(Owned, Base):
    """A key of the API; the secret itself is nowhere."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    """SHA-256 of the secret."""
    hint: Mapped[str]
    """The secret's first characters, by which its owner knows it again."""
    scopes: Mapped[list[str]]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("keys.id"), index=True)
    """The key that somebody signed in with, to whose browser this one belongs."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditRow(Owned, Base):
    """One request that changed something, or tried to."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "workspace", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now(), index=True)
    key_id: Mapped[str | None]
    who: Mapped[str]
    """Name of the key."""
    action: Mapped[str]
    """The operation's id in the OpenAPI document."""
    method: Mapped[str]
    path: Mapped[str]
    address: Mapped[str]
    """Where the request came from."""
    outcome: Mapped[str]
    """The status, or the code of the problem."""
    request_id: Mapped[str]
