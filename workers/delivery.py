"""Sends the messages of the outbox to webhooks, by the rules of Standard Webhooks.

Runs in a thread of every worker. A worker leases a message, so that no other worker sends it at the same time. A
receiver has ten seconds, and redirects are not followed. The service connects only to the address that passed the
check.
"""

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import anyio
import httpx
from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from app.db.leases import Lease
from app.errors import Invalid, LeaseLost
from app.process.troubles import Complaints
from app.webhooks import outbox
from app.webhooks.addresses import Address, check_url, choose
from app.webhooks.outbox import Reception, RetryPolicy, WebhookRequest
from app.webhooks.tables import DeliveryRow
from app.zoo import Zoo
from workers.supervisor import Supervisor
from workers.sweep import repeat

log = logging.getLogger(__name__)
_complain = Complaints(log)
SLOTS = 4
"""Messages that are sent at the same time; a receiver that hangs occupies one slot."""
SECONDS = 10.0
"""Time limit of one attempt: resolve the name, connect, send, and read the response."""


def deliver_webhooks(supervisor: Supervisor) -> None:
    """Send due messages until the supervisor is stopped."""
    free = threading.Semaphore(SLOTS)
    with ThreadPoolExecutor(SLOTS, "webhooks") as pool:

        def take() -> bool:
            if not free.acquire(blocking=False):
                return False
            claimed = None
            try:
                claimed = _claim(supervisor)
            finally:
                if claimed is None:
                    free.release()
            if claimed is not None:
                pool.submit(_deliver, supervisor.zoo, *claimed).add_done_callback(lambda _: free.release())
            return claimed is not None

        repeat(take, supervisor, DeliveryRow)


def _claim(supervisor: Supervisor) -> tuple[Lease, WebhookRequest] | None:
    """Claim a due message. Reads first: messages are rare, and a claim takes the write lock of SQLite."""
    with supervisor.zoo.database.read() as session:
        if not outbox.is_due(session):
            return None
    with supervisor.zoo.database.write() as session:
        return outbox.claim(session, supervisor.name)


def _deliver(zoo: Zoo, lease: Lease, message: WebhookRequest) -> None:
    settings = zoo.settings
    reception = send(message, private=settings.webhook_private)
    policy = RetryPolicy(timedelta(seconds=settings.webhook_retry_seconds), timedelta(days=settings.webhook_days))
    try:
        with zoo.database.write() as session:
            outbox.settle(session, lease, reception, policy)
    except LeaseLost as error:
        log.warning("%s", error)
    except SQLAlchemyError as error:
        _complain(f"{message.id}: the result cannot be stored; the message will be sent again", error)
    else:
        log.info("%s: %s", message.id, reception.error or "delivered")


def send(message: WebhookRequest, *, private: bool) -> Reception:
    """Send a message once.

    Args:
        message: The message.
        private: Whether private addresses are allowed.

    Returns:
        Status and start of the response, or the error.
    """
    try:
        return anyio.run(_send, message, private)
    except TimeoutError:
        return Reception(None, error=f"expected a response within {SECONDS:g} s, got none")
    except Invalid as error:
        return Reception(None, error=str(error))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        return Reception(None, error=f"expected a response, got {type(error).__name__}: {error}"[:500])


async def _send(message: WebhookRequest, private: bool) -> Reception:
    url = httpx.URL(check_url(message.url, private=private))
    with anyio.fail_after(SECONDS):
        address = await _resolve(url, private)
        async with httpx.AsyncClient(trust_env=False, timeout=SECONDS, follow_redirects=False) as client:
            request = client.build_request(
                "POST",
                url.copy_with(host=str(address)),
                content=message.body.encode(),
                headers={**_headers(message), "Host": url.netloc.decode()},
                # The connection goes to the address; the certificate must be valid for the host name.
                extensions={"sni_hostname": url.raw_host.decode()},
            )
            response = await client.send(request, stream=True)
            text = await _read_start(response)
            await response.aclose()
    error = None if response.is_success else f"expected 2xx, got {response.status_code}"
    return Reception(response.status_code, text, error)


async def _resolve(url: httpx.URL, private: bool) -> Address:
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await anyio.getaddrinfo(url.raw_host.decode(), port, type=socket.SOCK_STREAM)
    return choose([str(entry[4][0]) for entry in found], private=private)


async def _read_start(response: httpx.Response) -> str:
    """The first KB of the raw body, without decompression; the rest is not read."""
    start = b""
    async for chunk in response.aiter_raw():
        start += chunk
        if len(start) >= outbox.MAX_ANSWER:
            break
    return start[: outbox.MAX_ANSWER].decode("utf-8", "replace")


def _headers(message: WebhookRequest) -> dict[str, str]:
    signatures = (Webhook(secret).sign(message.id, message.sent_at, message.body) for secret in message.secrets)
    return {
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "pnc-zoo",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(message.sent_at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
