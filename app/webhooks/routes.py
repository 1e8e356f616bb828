"""HTTP API of webhooks and their deliveries."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from app.api.documented import documented
from app.api.requests import DoOnce, ListOf, ListQuery, OpenZoo, ReadSession, Reply
from app.api.scopes import ScopedRoute, needs
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.webhooks.tables import WebhookRow
from pnc_client.schemas import webhooks as wire
from pnc_client.schemas.shapes import Page

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of a webhook.", examples=["whk_019aa3b0c1d27f0e9d5c6b7a8f901234"])]
DeliveryId = Annotated[str, Path(description="Id of a delivery.", examples=["dlv_019aa3b0c1d27f0e9d5c6b7a8f901234"])]


class DeliveriesQuery(ListQuery):
    """Query of the log of deliveries."""

    state: wire.DeliveryState | None = None
    """Only deliveries in this state."""


@router.post("", response_model=wire.WebhookSecret, status_code=201, responses=documented(409))
@needs("admin")
def create_webhook(body: wire.WebhookCreate, once: DoOnce) -> Response:
    """Create a webhook: a URL that receives messages about events. Only this answer contains the signing secret."""
    private = once.zoo.settings.webhook_private

    def work(session: Any) -> Reply:
        row, secret = webhooks.create(
            session, url=body.url, events=body.events, description=body.description, private=private
        )
        return Reply(_with_secret(row, secret), location=f"/v1/webhooks/{row.id}", is_secret=True)

    return once(work)


@router.get("", response_model=Page[wire.Webhook])
@needs("read")
def list_webhooks(session: ReadSession, query: ListOf) -> Any:
    """Webhooks, newest first."""
    return webhooks.list_webhooks(session, query.window())


@router.get("/{webhook}", response_model=wire.Webhook, responses=documented(404))
@needs("read")
def get_webhook(webhook: Id, session: ReadSession) -> Any:
    """One webhook."""
    return webhooks.get(session, webhook)


@router.patch("/{webhook}", response_model=wire.Webhook, responses=documented(404))
@needs("admin")
def change_webhook(webhook: Id, body: wire.WebhookChange, zoo: OpenZoo) -> Any:
    """Enable or disable a webhook, or change its events. Waiting messages are sent once it is enabled."""
    with zoo.database.write() as session:
        return webhooks.change(session, webhook, **body.model_dump())


@router.delete("/{webhook}", status_code=204, responses=documented(404))
@needs("admin")
def delete_webhook(webhook: Id, zoo: OpenZoo) -> None:
    """Delete a webhook and its log of deliveries."""
    with zoo.database.write() as session:
        webhooks.delete(session, webhook)


@router.post("/{webhook}/rotate", response_model=wire.WebhookSecret, responses=documented(404))
@needs("admin")
def rotate_webhook(webhook: Id, once: DoOnce) -> Response:
    """Replace a webhook's secret. For 24 hours messages are signed with both secrets."""
    return once(lambda session: Reply(_with_secret(*webhooks.rotate(session, webhook)), 200, is_secret=True))


@router.post("/{webhook}/test", response_model=wire.Delivery, status_code=202, responses=documented(404, 409))
@needs("admin")
def test_webhook(webhook: Id, once: DoOnce) -> Response:
    """Send a test message to a webhook."""
    return once(lambda session: Reply(wire.Delivery.model_validate(outbox.post_test(session, webhook)), 202))


@router.get("/{webhook}/deliveries", response_model=Page[wire.Delivery], responses=documented(404))
@needs("read")
def list_deliveries(webhook: Id, session: ReadSession, query: Annotated[DeliveriesQuery, Query()]) -> Any:
    """A webhook's messages, sent and waiting, newest first. The log covers 30 days."""
    return outbox.list_deliveries(session, webhook, query.window(), state=query.state)


@router.post(
    "/{webhook}/deliveries/{delivery}/redeliver",
    response_model=wire.Delivery,
    status_code=202,
    responses=documented(404, 409),
)
@needs("admin")
def redeliver(webhook: Id, delivery: DeliveryId, once: DoOnce) -> Response:
    """Send a message again, with its old id and body."""
    return once(lambda session: Reply(wire.Delivery.model_validate(outbox.redeliver(session, webhook, delivery)), 202))


def _with_secret(row: WebhookRow, secret: str) -> wire.WebhookSecret:
    return wire.WebhookSecret(**wire.Webhook.model_validate(row).model_dump(), secret=secret)
