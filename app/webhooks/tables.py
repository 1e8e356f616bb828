"""Tables of webhooks and their deliveries."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.clock import utc_now
from app.db.tables import Base, Leased, Owned

DELIVERY_STATES = ("waiting", "delivered", "failed")


class WebhookRow(Owned, Base):
    """A URL that receives messages about events."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    events: Mapped[list[str]]
    """Subscribed events; empty: all."""
    enabled: Mapped[bool] = mapped_column(default=True)
    sealed: Mapped[str] = mapped_column("secret")
    """The secret, encrypted. A digest would not do, because the secret signs every message."""
    sealed_old: Mapped[str | None] = mapped_column("old_secret")
    """The secret before the last rotation, encrypted."""
    old_secret_until: Mapped[datetime | None]
    """Until this time messages are also signed with the old secret."""
    failing_since: Mapped[datetime | None]
    """Time of the first failure since the last success."""
    problem: Mapped[str | None]
    """Why the service has disabled the webhook."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


class DeliveryRow(Owned, Leased, Base):
    """One message to one webhook, written in the transaction of the change that it reports."""

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
    """Body of the message; the same bytes in each attempt."""
    state: Mapped[str] = mapped_column(default="waiting")
    due_at: Mapped[datetime] = mapped_column(default=utc_now())
    """Earliest time of the next attempt."""
    since: Mapped[datetime] = mapped_column(default=utc_now(), index=True)
    """Time at which the message was written, or its redelivery was requested."""
    tries: Mapped[int] = mapped_column(default=0)
    """Number of finished attempts since `since`."""
    status: Mapped[int | None]
    """HTTP status of the last answer."""
    answer: Mapped[str] = mapped_column(default="")
    """Beginning of the last answer's body."""
    error: Mapped[str | None]
    """Why the last attempt failed; None: it succeeded."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    tried_at: Mapped[datetime | None]
    """Time of the last attempt."""
    delivered_at: Mapped[datetime | None]
    webhook: Mapped[WebhookRow] = relationship(lazy="selectin", viewonly=True)

    @property
    def is_waiting(self) -> bool:
        """Whether a worker can claim it, now or later."""
        row = vars(self)
        return row.get("lease_worker") is None and row.get("state") == "waiting"
