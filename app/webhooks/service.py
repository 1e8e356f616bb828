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
"""Sent on request alone, whatever the webhook wants."""
MOST = 100
"""Webhooks that a workspace has at most: each change writes a row for every one."""
OLD_SECRET = timedelta(hours=24)
"""How long the secret before a rotation goes on signing."""


def create(
    session: Session, *, url: str, events: Sequence[str] = (), description: str = "", private: bool = False
) -> tuple[WebhookRow, str]:
    """Tell an address of changes from now on; with its secret, which is to be shown this once.

    Args:
        session: A writing session.
        url: Where messages are sent.
        events: Some of `EVENTS`; none: all of them, and those to come.
        description: Free text.
        private: Whether addresses of one's own network are allowed.

    Raises:
        Invalid: the URL or an event is not one.
        Conflict: there are too many webhooks.
        Misconfigured: there is no key to encrypt its secret with.
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
        NotFound: there is none with this id.
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
    """Change what is given; what waited while it was disabled is sent once it is enabled again.

    Raises:
        NotFound: there is none with this id.
        Invalid: an event is not one.
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
    """Tell an address nothing more; its deliveries go with it.

    Raises:
        NotFound: there is none with this id.
    """
    row = get(session, webhook_id)
    session.execute(delete_rows(DeliveryRow).where(DeliveryRow.webhook_id == row.id))
    session.delete(row)


def rotate(session: Session, webhook_id: str) -> tuple[WebhookRow, str]:
    """Give it another secret, to be shown this once; the one before signs too for a day.

    Raises:
        NotFound: there is none with this id.
        Misconfigured: there is no key to encrypt it with.
    """
    row, secret = get(session, webhook_id), new_secret()
    row.sealed_old, row.old_secret_until = row.sealed, clock.now(session) + OLD_SECRET
    row.sealed = sealing.of(session).seal(secret)
    session.flush()
    return row, secret


def secrets_of(session: Session, row: WebhookRow) -> tuple[str, ...]:
    """What signs a message now, the newest first.

    Raises:
        Misconfigured: no key decrypts it.
    """
    is_kept = row.old_secret_until is not None and row.old_secret_until > clock.now(session)
    kept = (row.sealed, row.sealed_old) if is_kept and row.sealed_old else (row.sealed,)
    return tuple(sealing.of(session).open(text) for text in kept)


def new_secret() -> str:
    """One as Standard Webhooks has them: 32 random bytes."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _check_events(events: Sequence[str]) -> None:
    unknown = [name for name in events if name not in EVENTS]
    if unknown:
        detail = f"expected some of {', '.join(EVENTS)}, got {unknown[0]!r:.80}"
        raise Invalid.at("/events", "unknown_event", detail)
