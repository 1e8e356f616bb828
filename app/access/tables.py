"""Tables of workspaces, keys and the audit log."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.clock import utc_now
from app.db.tables import Base, Owned


class WorkspaceRow(Base):
    """A workspace and its limits. Each workspace sees only its own rows."""

    __tablename__ = "workspaces"

    name: Mapped[str] = mapped_column(primary_key=True)
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Limit of the bytes of uploads, models, datasets and bundles together; None: no limit."""
    max_jobs: Mapped[int | None]
    """Limit of the jobs that have not ended; None: no limit."""
    requests_per_minute: Mapped[int | None]
    """Limit of the requests with one key to one API process; None: no limit."""
    require_signature: Mapped[bool] = mapped_column(default=False, server_default="0")
    """Whether deployments accept only modules that a trusted key has signed."""
    retention_days: Mapped[int | None]
    """Days after which archived records are purged; None: they are purged only on request."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


class KeyRow(Owned, Base):
    """An API key. Its secret is not stored."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    """SHA-256 of the secret."""
    hint: Mapped[str]
    """The secret's first characters, so that its owner can recognise the key."""
    scopes: Mapped[list[str]]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("keys.id"), index=True)
    """For a browser's key: the key that was used to sign in."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditRow(Owned, Base):
    """One request that changed something or was refused."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "workspace", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now(), index=True)
    key_id: Mapped[str | None]
    who: Mapped[str]
    """Name of the key, or of the part of the service that made the change."""
    action: Mapped[str]
    """Operation id in the OpenAPI document."""
    method: Mapped[str]
    path: Mapped[str]
    address: Mapped[str]
    """IP address of the client."""
    outcome: Mapped[str]
    """HTTP status, or the code of the problem."""
    request_id: Mapped[str]
