"""Sends what waits in the outbox to webhooks, by the rules of Standard Webhooks.

Beside the jobs, in every worker: a message is taken under a lease, so that two workers do not send it at a time. A
receiver gets ten seconds, is not followed elsewhere, and can make the service connect to nothing but the address that
was judged.
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
from app.zoo import Zoo
from workers.supervisor import Supervisor
from workers.sweep import repeat

log = logging.getLogger(__name__)
_complain = Complaints(log)
SLOTS = 4
"""Receivers that are told at once; one that hangs fills one."""
SECONDS = 10.0
"""For all of a try: finding, connecting, sending and hearing the answer."""


def deliver_webhooks(supervisor: Supervisor) -> None:
    """Send what is due, until the supervisor is stopped."""
    free = threading.Semaphore(SLOTS)
    with ThreadPoolExecutor(SLOTS, "webhooks") as pool:

        def take() -> bool:
            if not free.acquire(blocking=False):
                return False
            taken = None
            try:
                taken = _claim(supervisor)
            finally:
                if taken is None:
                    free.release()
            if taken is not None:
                pool.submit(_see_through, supervisor.zoo, *taken).add_done_callback(lambda _: free.release())
            return taken is not None

        repeat(take, supervisor.stop)


def _claim(supervisor: Supervisor) -> tuple[Lease, WebhookRequest] | None:
    """Look first: there is seldom anything to do, and a claim takes the write lock of SQLite."""
    with supervisor.zoo.database.read() as session:
        if not outbox.is_due(session):
            return None
    with supervisor.zoo.database.write() as session:
        return outbox.claim(session, supervisor.name)


def _see_through(zoo: Zoo, lease: Lease, message: WebhookRequest) -> None:
    settings = zoo.settings
    answer = send(message, private=settings.webhook_private)
    policy = RetryPolicy(timedelta(seconds=settings.webhook_retry_seconds), timedelta(days=settings.webhook_days))
    try:
        with zoo.database.write() as session:
            outbox.settle(session, lease, answer, policy)
    except LeaseLost as error:
        log.warning("%s", error)
    except SQLAlchemyError as error:
        _complain(f"{message.id}: what came of it cannot be kept; it will be sent again", error)
    else:
        log.info("%s: %s", message.id, answer.error or "delivered")


def send(message: WebhookRequest, *, private: bool) -> Reception:
    """Send a message once.

    Args:
        message: The message.
        private: Whether it may go to addresses of one's own network.

    Returns:
        What came of it; trouble is an answer, too.
    """
    try:
        return anyio.run(_send, message, private)
    except TimeoutError:
        return Reception(None, error=f"expected an answer within {SECONDS:g} s, got none")
    except Invalid as error:
        return Reception(None, error=str(error))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        return Reception(None, error=f"expected an answer, got {type(error).__name__}: {error}"[:500])


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
                # The certificate must still be the name's, though the connection goes to the address.
                extensions={"sni_hostname": url.raw_host.decode()},
            )
            response = await client.send(request, stream=True)
            text = await _beginning(response)
            await response.aclose()
    error = None if response.is_success else f"expected 2xx, got {response.status_code}"
    return Reception(response.status_code, text, error)


async def _resolve(url: httpx.URL, private: bool) -> Address:
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await anyio.getaddrinfo(url.raw_host.decode(), port, type=socket.SOCK_STREAM)
    return choose([str(entry[4][0]) for entry in found], private=private)


async def _beginning(response: httpx.Response) -> str:
    """The first KB, as it comes: nothing is unpacked, and the rest is never read."""
    kept = b""
    async for chunk in response.aiter_raw():
        kept += chunk
        if len(kept) >= outbox.MAX_ANSWER:
            break
    return kept[: outbox.MAX_ANSWER].decode("utf-8", "replace")


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
