"""The outbox of webhook messages: written in the transaction of a change, and sent later, at least once.

A sender claims a due message with a lease, sends it, and records the result here. At most one message is sent to a
webhook at a time, so that a slow receiver delays only its own messages.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, select
from sqlalchemy.orm import Session, aliased

from app.db import clock, leases
from app.db.clock import utc_now
from app.db.ids import new_id
from app.db.leases import Lease
from app.db.pages import Page, Window, page
from app.errors import Conflict, NotFound
from app.webhooks import service as webhooks
from app.webhooks.tables import DeliveryRow, WebhookRow

LEASE_SECONDS = 60
"""Duration of a sender's lease; longer than any attempt to send takes."""
LONGEST_PAUSE = timedelta(hours=6)
"""Limit of the pause between two attempts."""
FACTOR = 3
"""Each pause is this many times as long as the one before."""
JITTER = 0.2
"""Each pause is changed randomly by at most this share."""
MAX_TEXT = 500
"""Longer texts in a message are cut to this number of characters, so that a message has a few KB at most."""
MAX_ANSWER = 1024
"""Number of characters of an answer's body that are stored."""
KEPT = timedelta(days=30)
"""Age at which a delivery is deleted from the log."""
GONE = 410
"""HTTP status with which a receiver asks for no more messages."""


@dataclass(frozen=True)
class WebhookRequest:
    """A message to send."""

    id: str
    """Id of the message; the same in each attempt, so that the receiver can recognise repetitions."""
    url: str
    body: str
    secrets: tuple[str, ...]
    """Secrets to sign the message with."""
    sent_at: datetime


@dataclass(frozen=True)
class Reception:
    """The result of an attempt to send a message."""

    status: int | None
    """HTTP status; None: there was no answer."""
    text: str = ""
    """Body of the answer."""
    error: str | None = None
    """Why the attempt failed; None: the message was delivered."""


@dataclass(frozen=True)
class RetryPolicy:
    """Pauses between attempts, and their limit."""

    first: timedelta
    """Pause after the first failure."""
    limit: timedelta
    """A message that fails for this time is given up; a webhook that fails for this time is disabled."""


def post(session: Session, workspace: str, kind: str, data: Callable[[], Mapping[str, Any]]) -> None:
    """Write a message to every enabled webhook of a workspace that subscribes to this event.

    Args:
        session: The writing session of the change; it may belong to no workspace.
        workspace: Workspace of the changed record.
        kind: One of `webhooks.EVENTS`.
        data: Returns the message's data; called only if there is a subscribed webhook.
    """
    # The lock is needed: if a webhook were deleted at this moment, the new message would fail the whole transaction.
    enabled = WebhookRow.enabled & (WebhookRow.workspace == workspace)
    query = select(WebhookRow).where(enabled).with_for_update(read=True, key_share=True)
    subscribed = [row for row in session.scalars(query).all() if not row.events or kind in row.events]
    if subscribed:
        body = _body(session, kind, data())
        session.add_all(_delivery(row, kind, body) for row in subscribed)


def post_test(session: Session, webhook_id: str) -> DeliveryRow:
    """Write a test message.

    Raises:
        NotFound: there is no such webhook.
        Conflict: the webhook is disabled.
    """
    hook = _enabled(session, webhook_id)
    kind, data = webhooks.TEST_EVENT, {"webhook": hook.id, "message": "messages of this webhook arrive"}
    row = _delivery(hook, kind, _body(session, kind, data))
    session.add(row)
    session.flush()
    return row


def list_deliveries(
    session: Session, webhook_id: str, window: Window, *, state: str | None = None
) -> Page[DeliveryRow]:
    """A webhook's deliveries of the last 30 days, newest first, in one state or in any.

    Raises:
        NotFound: there is no such webhook.
    """
    query = select(DeliveryRow).where(DeliveryRow.webhook_id == webhooks.get(session, webhook_id).id)
    if state is not None:
        query = query.where(DeliveryRow.state == state)
    return page(session, query, DeliveryRow.id, str, window)


def redeliver(session: Session, webhook_id: str, delivery_id: str) -> DeliveryRow:
    """Make a message due now, with its old id and body, also if it was delivered already.

    Raises:
        NotFound: there is no such webhook, or it has no such delivery.
        Conflict: the webhook is disabled.
    """
    hook = _enabled(session, webhook_id)
    row = session.get(DeliveryRow, delivery_id)
    if row is None or row.webhook_id != hook.id:
        raise NotFound(
            f"expected a delivery of {hook.id}, got none with id {delivery_id!r:.80}; "
            f"see GET /v1/webhooks/{hook.id}/deliveries"
        )
    row.state, row.since, row.due_at = "waiting", clock.now(session), clock.now(session)
    row.tries = 0
    session.flush()
    return row


def is_due(session: Session) -> bool:
    """Whether a message is due."""
    return session.scalar(_waiting_hooks().limit(1)) is not None


def claim(session: Session, worker: str) -> tuple[Lease, WebhookRequest] | None:
    """Claim the oldest due message of the webhook that has waited longest, if there is one."""
    claimed = _claimed(session, worker)
    if claimed is None:
        return None
    lease, row = claimed
    hook = row.webhook
    return lease, WebhookRequest(row.id, hook.url, row.body, webhooks.secrets_of(session, hook), clock.now(session))


def _claimed(session: Session, worker: str) -> tuple[Lease, DeliveryRow] | None:
    """Lock a webhook and claim its message. Other senders skip a locked webhook.

    The message is selected by a second statement, which sees the changes that others committed before the lock.
    """
    hook_id = session.scalar(_waiting_hooks().limit(1).with_for_update(skip_locked=True, key_share=True, of=WebhookRow))
    return None if hook_id is None else leases.claim(session, DeliveryRow, _free(hook_id), worker, LEASE_SECONDS)


def settle(session: Session, lease: Lease, answer: Reception, policy: RetryPolicy) -> None:
    """Record the result of an attempt: the message is delivered, waits for the next attempt, or is given up.

    A webhook that has failed for `policy.limit`, or whose receiver answers 410, is disabled.

    Args:
        session: A writing session that belongs to no workspace.
        lease: Lease of the message.
        answer: Result of the attempt.
        policy: Pauses and limit.

    Raises:
        LeaseLost: the lease has expired, or the webhook was deleted.
    """
    row, now = leases.held(session, DeliveryRow, lease), clock.now(session)
    row.tries += 1
    row.status, row.answer, row.error, row.tried_at = answer.status, answer.text[:MAX_ANSWER], answer.error, now
    leases.drop(row)
    hook = session.get_one(WebhookRow, row.webhook_id, with_for_update={"key_share": True})
    if answer.error is None:
        row.state, row.delivered_at, hook.failing_since = "delivered", now, None
        return
    hook.failing_since = hook.failing_since or now
    is_over = answer.status == GONE or now - row.since >= policy.limit
    row.state, row.due_at = ("failed" if is_over else "waiting"), now + pause_after(row.tries, policy.first)
    if answer.status == GONE or now - hook.failing_since >= policy.limit:
        hook.enabled = False
        hook.problem = f"failed since {hook.failing_since:%Y-%m-%d %H:%M} UTC; the last error: {answer.error}"


def pause_after(tries: int, first: timedelta) -> timedelta:
    """The pause before the next attempt: exponential backoff with jitter.

    Args:
        tries: Number of failed attempts.
        first: Pause after the first failure.
    """
    seconds = min(first.total_seconds() * FACTOR ** min(tries - 1, 30), LONGEST_PAUSE.total_seconds())
    jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads messages that failed at the same time
    return timedelta(seconds=seconds * jitter)


def sweep(session: Session) -> int:
    """Take messages back from senders whose leases have expired, and return their number."""
    return len(leases.take_back(session, DeliveryRow))


def forget_old(session: Session) -> None:
    """Delete deliveries older than `KEPT`."""
    session.execute(delete(DeliveryRow).where(DeliveryRow.since < clock.now(session) - KEPT))


def _waiting_hooks() -> Select[str]:
    """Ids of webhooks with a due message and no message in transit, the longest waiting first."""
    due_at = select(func.min(DeliveryRow.due_at)).where(
        DeliveryRow.webhook_id == WebhookRow.id, DeliveryRow.state == "waiting"
    )
    first = due_at.correlate(WebhookRow).scalar_subquery()
    due = WebhookRow.enabled & (first <= utc_now()) & ~_is_busy(WebhookRow.id)
    return select(WebhookRow.id).where(due).order_by(first, WebhookRow.id)


def _free(hook_id: str) -> ColumnElement[bool]:
    """Condition: a message of this webhook is due, and none is in transit."""
    is_due = (DeliveryRow.state == "waiting") & (DeliveryRow.due_at <= utc_now())
    return (DeliveryRow.webhook_id == hook_id) & is_due & ~_is_busy(DeliveryRow.webhook_id)


def _is_busy(webhook_id: Any) -> ColumnElement[bool]:
    other = aliased(DeliveryRow)
    return exists().where(other.webhook_id == webhook_id, other.lease_worker.is_not(None))


def _enabled(session: Session, webhook_id: str) -> WebhookRow:
    row = webhooks.get(session, webhook_id)
    if not row.enabled:
        raise Conflict(f"{row.id}: expected a webhook that is enabled, got one that is not; enable it with PATCH")
    return row


def _delivery(hook: WebhookRow, kind: str, body: str) -> DeliveryRow:
    return DeliveryRow(id=new_id("dlv"), workspace=hook.workspace, webhook_id=hook.id, type=kind, body=body)


def _body(session: Session, kind: str, data: Mapping[str, Any]) -> str:
    """The body of a message, in the format of Standard Webhooks."""
    payload = {"type": kind, "timestamp": clock.now(session).isoformat(), "data": _shortened(data)}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    return value
