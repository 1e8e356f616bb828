"""Webhooks and their deliveries."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import RequestBody, ResponseBody, known

Event = Literal[
    "job.validating",
    "job.queued",
    "job.running",
    "job.pausing",
    "job.paused",
    "job.cancelling",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "deployment.changed",
    "deployment.served",
    "deployment.refused",
    "deployment.deleted",
]
DeliveryState = Literal["waiting", "delivered", "failed"]


class WebhookCreate(RequestBody):
    """A webhook to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://hooks.example/pnc", "events": ["job.succeeded", "job.failed"]}]
        }
    )

    url: str = Field(min_length=1, max_length=2000)
    """Where messages are sent: `https://` or `http://`, in the public internet."""
    events: list[Event] = Field([], max_length=100)
    """Types of events to tell of; an empty list: all, also those to come."""
    description: str = Field("", max_length=1000)
    """Free text."""


class WebhookChange(RequestBody):
    """What may change of a webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    enabled: bool | None = None
    """Send messages or let them wait; left out: as it is."""
    events: list[Event] | None = Field(None, max_length=100)
    """Types of events to tell of; left out: as it is."""
    description: str | None = Field(None, max_length=1000)
    """New free text; left out: as it is."""


class Webhook(ResponseBody):
    """An address that is told of changes."""

    id: str
    """Typed id, `whk_...`."""
    url: str
    """Where messages are sent."""
    events: list[str]
    """Types of events that it is told of; an empty list: all."""
    description: str
    """Free text."""
    enabled: bool
    """Whether messages are sent."""
    failing_since: datetime | None
    """First failure since the last success."""
    problem: str | None
    """Why the service has disabled it."""
    created_at: datetime
    """When it was made."""


class WebhookSecret(Webhook):
    """A webhook with its new secret, which is shown this once."""

    secret: str
    """`whsec_` and a key in base64, for any library of Standard Webhooks."""


class Delivery(ResponseBody):
    """One message to a webhook."""

    id: str
    """Typed id, `dlv_...`; also the header `webhook-id`, the same at every try."""
    type: str
    """Type of the event."""
    body: str
    """What is sent."""
    state: Annotated[str, known(DeliveryState)]
    """`waiting` for its next try, `delivered`, or `failed` for good."""
    tries: int
    """How often it was sent."""
    due_at: datetime
    """When a waiting one is sent next."""
    status: int | None
    """HTTP status of the last answer."""
    answer: str
    """Beginning of the last answer's body, 1 KB at most."""
    error: str | None
    """Why the last try failed."""
    created_at: datetime
    """When the change happened."""
    tried_at: datetime | None
    """When it was last sent."""
    delivered_at: datetime | None
    """When it arrived."""
