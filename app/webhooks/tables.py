"""Tables of webhooks: who is told of changes, and every message to them."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.clock import utc_now
from app.db.tables import Base, Leased, Owned

DELIVERY_STATES = ("waiting", "delivered", "failed")


class WebhookRow(Owned, Base):
    """An address that is told of changes."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    events: Mapped[list[str]]
    """Types of events that it wants; none: all."""
    enabled: Mapped[bool] = mapped_column(default=True)
    sealed: Mapped[str] = mapped_column("secret")
    """Its secret, encrypted: it signs every message, so it cannot be kept as a digest."""
    sealed_old: Mapped[str | None] = mapped_column("old_secret")
    """The one before, which signs beside the new one for a while after a rotation."""
    old_secret_until: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    """First failure since the last success."""
    problem: Mapped[str | None]
    """Why the service has disabled it."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


class DeliveryRow(Owned, Leased, Base):
    """One message to one webhook; written in the transaction of the change that it tells of."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(s) for s in DELIVERY_STATES)})", name="state"),
        Index(None, "state", "due_at"),
        Index(None, "webhook_id", "id"),
        Index(None, "webhook_id", "state", "due_at"),
        Index(
            "ix_webhook_deliveries_leased",
            "webhook_id",
            postgresql_where=text("lease_worker IS NOT NULL"),
            sqlite_where=text("lease_worker IS NOT NULL"),
        ),
    )

    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str]
    body: Mapped[str]
    """What is sent, byte for byte the same at every try."""
    state: Mapped[str] = mapped_column(default="waiting")
    due_at: Mapped[datetime] = mapped_column(default=utc_now())
    """Not to be tried before."""
    since: Mapped[datetime] = mapped_column(default=utc_now(), index=True)
    """When it was written, or asked for again."""
    tries: Mapped[int] = mapped_column(default=0)
    """How often an answer was waited for."""
    status: Mapped[int | None]
    """HTTP status of the last answer."""
    answer: Mapped[str] = mapped_column(default="")
    """Beginning of the last answer's body."""
    error: Mapped[str | None]
    """Why the last try failed."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    tried_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    webhook: Mapped[WebhookRow] = relationship(lazy="selectin", viewonly=True)
