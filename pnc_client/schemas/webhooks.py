"""JSON types of webhooks and their deliveries."""

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
    """A webhook to create."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://hooks.example/pnc", "events": ["job.succeeded", "job.failed"]}]
        }
    )

    url: str = Field(min_length=1, max_length=2000)
    """Address that receives the messages: `https://` or `http://`, on the public internet."""
    events: list[Event] = Field([], max_length=100)
    """Event types to send; an empty list: all types, including types that newer services add."""
    description: str = Field("", max_length=1000)
    """Free text."""


class WebhookChange(RequestBody):
    """Changes of a webhook; omitted fields stay unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    enabled: bool | None = None
    """True: send messages; false: hold them back."""
    events: list[Event] | None = Field(None, max_length=100)
    """Event types to send; an empty list: all types."""
    description: str | None = Field(None, max_length=1000)
    """New free text."""


class Webhook(ResponseBody):
    """An address that receives events."""

    id: str
    """Typed id, `whk_...`."""
    url: str
    """Address that receives the messages."""
    events: list[str]
    """Event types to send; an empty list: all types."""
    description: str
    """Free text."""
    enabled: bool
    """Whether messages are sent."""
    failing_since: datetime | None
    """Time of the first failure since the last success; null: the last delivery succeeded."""
    problem: str | None
    """Why the service has disabled the webhook; null: it has not."""
    created_at: datetime
    """Time of creation."""


class WebhookSecret(Webhook):
    """A webhook with its new secret, which is shown only once."""

    secret: str
    """`whsec_` and a key in base64, for any Standard Webhooks library."""


class Delivery(ResponseBody):
    """One message to a webhook."""

    id: str
    """Typed id, `dlv_...`; also the header `webhook-id`, which stays the same when a message is sent again."""
    type: str
    """Type of the event."""
    body: str
    """Body of the message."""
    state: Annotated[str, known(DeliveryState)]
    """`waiting` for the next attempt, `delivered`, or `failed` permanently."""
    tries: int
    """Number of attempts to send the message."""
    due_at: datetime
    """Time of the next attempt of a waiting message."""
    status: int | None
    """HTTP status of the last response."""
    answer: str
    """First bytes of the last response's body, at most 1 KB."""
    error: str | None
    """Why the last attempt failed; null: it did not fail."""
    created_at: datetime
    """Time of the event."""
    tried_at: datetime | None
    """Time of the last attempt."""
    delivered_at: datetime | None
    """Time of delivery; null: not delivered."""
