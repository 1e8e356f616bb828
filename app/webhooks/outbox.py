"""Messages to webhooks: written with the change that they tell of, sent later, at least once.

Whoever sweeps takes a message that is due under a lease, sends it, and says here what came of it. A webhook is sent one
message at a time, so that a receiver that hangs holds up only itself.
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
"""Longer than any try takes."""
LONGEST_PAUSE = timedelta(hours=6)
FACTOR = 3
"""Each pause is so many times the one before."""
JITTER = 0.2
MAX_TEXT = 500
"""Characters of one text in a message; all of it stays below a few KB."""
MAX_ANSWER = 1024
KEPT = timedelta(days=30)
"""How long the log of deliveries reaches back."""
GONE = 410
"""The receiver wants nothing more."""


@dataclass(frozen=True)
class WebhookRequest:
    """What to send where."""

    id: str
    """The same at every try, so that the receiver can tell a repetition."""
    url: str
    body: str
    secrets: tuple[str, ...]
    sent_at: datetime


@dataclass(frozen=True)
class Reception:
    """What came of a try."""

    status: int | None
    """HTTP status; none: no answer."""
    text: str = ""
    error: str | None = None
    """Why it failed; none: it was delivered."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long to go on trying."""

    first: timedelta
    """Pause after the first failure."""
    limit: timedelta
    """A message, and a webhook, that fails for so long is given up."""


def post(session: Session, workspace: str, kind: str, data: Callable[[], Mapping[str, Any]]) -> None:
    """Write a message to every webhook of a workspace that wants this kind of event.

    Args:
        session: The writing session of the change, which may belong to none.
        workspace: Of what has changed.
        kind: One of `webhooks.EVENTS`.
        data: Makes what is told; asked only if somebody listens.
    """
    # Without the lock a webhook that is deleted at this moment would fail the change itself.
    listening = WebhookRow.enabled & (WebhookRow.workspace == workspace)
    query = select(WebhookRow).where(listening).with_for_update(read=True, key_share=True)
    found = session.scalars(query).all()
    wanting = [row for row in found if not row.events or kind in row.events]
    if wanting:
        body = _body(session, kind, data())
        session.add_all(_addressed(row, kind, body) for row in wanting)


def post_test(session: Session, webhook_id: str) -> DeliveryRow:
    """Write a message that tells nothing but that messages arrive.

    Raises:
        NotFound: there is no such webhook.
        Conflict: it is disabled.
    """
    hook = _enabled(session, webhook_id)
    kind, told = webhooks.TEST_EVENT, {"webhook": hook.id, "message": "messages of this webhook arrive"}
    row = _addressed(hook, kind, _body(session, kind, told))
    session.add(row)
    session.flush()
    return row


def list_deliveries(
    session: Session, webhook_id: str, window: Window, *, state: str | None = None
) -> Page[DeliveryRow]:
    """A webhook's messages of the last 30 days, newest first, in one state or all.

    Raises:
        NotFound: there is no such webhook.
    """
    query = select(DeliveryRow).where(DeliveryRow.webhook_id == webhooks.get(session, webhook_id).id)
    if state is not None:
        query = query.where(DeliveryRow.state == state)
    return page(session, query, DeliveryRow.id, str, window)


def redeliver(session: Session, webhook_id: str, delivery_id: str) -> DeliveryRow:
    """Send a message once more as it was, now; one that waits is not waited for any longer.

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
    """Whether there is anything to send."""
    return session.scalar(_waiting_hooks().limit(1)) is not None


def claim(session: Session, worker: str) -> tuple[Lease, WebhookRequest] | None:
    """Take the oldest message of the webhook that has waited longest, if one is due."""
    claimed = _claimed(session, worker)
    if claimed is None:
        return None
    lease, row = claimed
    hook = row.webhook
    return lease, WebhookRequest(row.id, hook.url, row.body, webhooks.secrets_of(session, hook), clock.now(session))


def _claimed(session: Session, worker: str) -> tuple[Lease, DeliveryRow] | None:
    """The webhook's row is locked until the transaction ends: who looks at the same moment passes it over.

    The message is then looked for by a statement of its own, which sees what others have committed meanwhile.
    """
    hook_id = session.scalar(_waiting_hooks().limit(1).with_for_update(skip_locked=True, key_share=True, of=WebhookRow))
    return None if hook_id is None else leases.claim(session, DeliveryRow, _free(hook_id), worker, LEASE_SECONDS)


def settle(session: Session, lease: Lease, answer: Reception, policy: RetryPolicy) -> None:
    """Say what came of a try: delivered, tried again later, or given up; a webhook may be disabled by it.

    Raises:
        LeaseLost: the lease has run out, or the webhook was deleted.
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
        hook.problem = f"failed since {hook.failing_since:%Y-%m-%d %H:%M} UTC; the last time: {answer.error}"


def pause_after(tries: int, first: timedelta) -> timedelta:
    """How long to wait after so many failures: a growing time with some chance in it."""
    seconds = min(first.total_seconds() * FACTOR ** min(tries - 1, 30), LONGEST_PAUSE.total_seconds())
    chance = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - keeps receivers from being met all at once
    return timedelta(seconds=seconds * chance)


def sweep(session: Session) -> int:
    """Take messages back from senders that fell silent. Returns how many."""
    return len(leases.take_back(session, DeliveryRow))


def forget_old(session: Session) -> None:
    """Shorten the log."""
    session.execute(delete(DeliveryRow).where(DeliveryRow.since < clock.now(session) - KEPT))


def _waiting_hooks() -> Select[str]:
    """Ids of webhooks that have something due and that nothing is being sent to, the longest waiting first."""
    due_at = select(func.min(DeliveryRow.due_at)).where(
        DeliveryRow.webhook_id == WebhookRow.id, DeliveryRow.state == "waiting"
    )
    first = due_at.correlate(WebhookRow).scalar_subquery()
    due = WebhookRow.enabled & (first <= utc_now()) & ~_is_busy(WebhookRow.id)
    return select(WebhookRow.id).where(due).order_by(first, WebhookRow.id)


def _free(hook_id: str) -> ColumnElement[bool]:
    """Messages of one webhook that are due, while nothing is being sent to it."""
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


def _addressed(hook: WebhookRow, kind: str, body: str) -> DeliveryRow:
    return DeliveryRow(id=new_id("dlv"), workspace=hook.workspace, webhook_id=hook.id, type=kind, body=body)


def _body(session: Session, kind: str, data: Mapping[str, Any]) -> str:
    """The payload of Standard Webhooks: what happened, when, and about what."""
    told = {"type": kind, "timestamp": clock.now(session).isoformat(), "data": _shortened(data)}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    return value
