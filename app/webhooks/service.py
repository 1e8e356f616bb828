"""Webhooks: addresses that receive messages about jobs and deployments. `app.webhooks.outbox` holds the messages."""

import base64
import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import clock, sealing
from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.errors import Conflict, Invalid, NotFound
from app.jobs.tables import JOB_STATES
from app.webhooks.addresses import check_url
from app.webhooks.tables import DeliveryRow, WebhookRow

JOB_EVENTS = tuple(f"job.{state}" for state in JOB_STATES)
DEPLOYMENT_EVENTS = ("deployment.changed", "deployment.served", "deployment.refused", "deployment.deleted")
EVENTS = JOB_EVENTS + DEPLOYMENT_EVENTS
TEST_EVENT = "webhook.test"
"""Sent only on request, to any webhook."""
MOST = 100
"""Limit of webhooks in a workspace, because each event writes a row for each subscribed webhook."""
OLD_SECRET = timedelta(hours=24)
"""For this time after a rotation, messages are also signed with the old secret."""


def create(
    session: Session, *, url: str, events: Sequence[str] = (), description: str = "", private: bool = False
) -> tuple[WebhookRow, str]:
    """Create a webhook.

    Args:
        session: A writing session.
        url: URL that receives the messages.
        events: Some of `EVENTS`; empty: all events, including those of later releases.
        description: Free text.
        private: Whether private addresses are allowed.

    Returns:
        The webhook and its secret. The secret must be shown now: it is stored encrypted and not shown again.

    Raises:
        Invalid: the URL is not valid, or an event is unknown.
        Conflict: the workspace has reached its limit of webhooks.
        Misconfigured: there is no key to encrypt the secret with.
    """
    check_url(url, private=private)
    _check_events(events)
    if (session.scalar(select(func.count(WebhookRow.id))) or 0) >= MOST:
        raise Conflict(f"expected at most {MOST} webhooks, got one more; delete one with DELETE /v1/webhooks/<id>")
    secret = new_secret()
    sealed = sealing.of(session).seal(secret)
    row = WebhookRow(id=new_id("whk"), url=url, description=description, events=sorted(set(events)), sealed=sealed)
    session.add(row)
    session.flush()
    return row, secret


def list_webhooks(session: Session, window: Window) -> Page[WebhookRow]:
    """Webhooks, newest first."""
    return page(session, select(WebhookRow), WebhookRow.id, str, window)


def get(session: Session, webhook_id: str) -> WebhookRow:
    """One webhook.

    Raises:
        NotFound: there is no webhook with this id.
    """
    row = session.get(WebhookRow, webhook_id)
    if row is None:
        raise NotFound(f"expected a webhook, got none with id {webhook_id!r:.80}; see GET /v1/webhooks")
    return row


def change(
    session: Session,
    webhook_id: str,
    *,
    enabled: bool | None = None,
    events: Sequence[str] | None = None,
    description: str | None = None,
) -> WebhookRow:
    """Change the given properties of a webhook. Messages that waited while it was disabled are sent once it is enabled.

    Raises:
        NotFound: there is no webhook with this id.
        Invalid: an event is unknown.
    """
    row = get(session, webhook_id)
    if events is not None:
        _check_events(events)
        row.events = sorted(set(events))
    if description is not None:
        row.description = description
    if enabled is not None:
        row.enabled, row.problem, row.failing_since = enabled, None, None
    session.flush()
    return row


def delete(session: Session, webhook_id: str) -> None:
    """Delete a webhook and its deliveries.

    Raises:
        NotFound: there is no webhook with this id.
    """
    row = get(session, webhook_id)
    session.execute(delete_rows(DeliveryRow).where(DeliveryRow.webhook_id == row.id))
    session.delete(row)


def rotate(session: Session, webhook_id: str) -> tuple[WebhookRow, str]:
    """Replace a webhook's secret. Messages are also signed with the old secret for `OLD_SECRET`.

    Returns:
        The webhook and its new secret, which must be shown now.

    Raises:
        NotFound: there is no webhook with this id.
        Misconfigured: there is no key to encrypt the secret with.
    """
    row, secret = get(session, webhook_id), new_secret()
    row.sealed_old, row.old_secret_until = row.sealed, clock.now(session) + OLD_SECRET
    row.sealed = sealing.of(session).seal(secret)
    session.flush()
    return row, secret


def secrets_of(session: Session, row: WebhookRow) -> tuple[str, ...]:
    """The secrets that sign a message now, newest first.

    Raises:
        Misconfigured: no configured key decrypts a secret.
    """
    is_kept = row.old_secret_until is not None and row.old_secret_until > clock.now(session)
    kept = (row.sealed, row.sealed_old) if is_kept and row.sealed_old else (row.sealed,)
    return tuple(sealing.of(session).open(text) for text in kept)


def new_secret() -> str:
    """A random secret of 32 bytes, in the format of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _check_events(events: Sequence[str]) -> None:
    unknown = [name for name in events if name not in EVENTS]
    if unknown:
        detail = f"expected some of {', '.join(EVENTS)}, got {unknown[0]!r:.80}"
        raise Invalid.at("/events", "unknown_event", detail)
