"""Messages to a real receiver: signed, repeated, and never sent to a forbidden address."""

import base64
import functools
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import httpx
import pytest
import trustme
from standardwebhooks import Webhook

from app import demo
from app.webhooks.outbox import WebhookRequest
from pnc_client import ApiError, Client, Delivery
from tests.integration.conftest import QUICK, Start, fill, wait_until
from tests.services.processes import free_port
from workers import delivery as delivering

Heard = list[tuple[dict[str, str], str]]
"""Headers and body of every message."""
Respond = Callable[["Receiver"], None]
EXAMPLE = Path(__file__).parents[2] / "examples" / "receive_webhooks.py"
TOLD = {"type": "job.succeeded", "timestamp": "2026-01-01T00:00:00Z", "data": {"job": "job_1"}}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver(BaseHTTPRequestHandler):
    """Stores the messages, and responds as the test sets."""

    heard: Heard
    respond: Respond

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.heard.append((dict(self.headers), body))
        type(self).respond(self)

    def do_GET(self) -> None:
        self.heard.append((dict(self.headers), ""))
        self.reply(204)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving(respond: Respond, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, Heard]]:
    """The receiver's address and its messages."""
    heard: Heard = []
    handler = type("Handler", (Receiver,), {"heard": heard, "respond": staticmethod(respond)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook?a=1", heard
        finally:
            server.shutdown()
            thread.join()


def letter(url: str) -> WebhookRequest:
    return WebhookRequest("dlv_1", url, '{"type":"webhook.test"}', (SECRET,), datetime.now(UTC))


def settled(client: Client, webhook: str, delivery: str) -> Delivery:
    deadline = time.monotonic() + 60
    while (found := next(d for d in client.webhooks.deliveries(webhook) if d.id == delivery)).state == "waiting":
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_a_job_is_told_of_again_and_again_until_the_receiver_takes_it(
    start: Start, material: demo.Material, tmp_path: Path
) -> None:
    service = start(PNC_WEBHOOK_PRIVATE="true", PNC_WEBHOOK_RETRY_SECONDS="0.2")
    answers = iter([500, 503])
    with (
        receiving(lambda receiver: receiver.reply(next(answers, 204))) as (url, heard),
        Client(service.url) as client,
    ):
        hook = client.webhooks.create(url, events=["job.cancelled"])
        dataset = fill(service.url, material, tmp_path)
        job = client.jobs.create("digits-low", "digits-high", dataset.id, QUICK)
        client.jobs.cancel(job.id)
        client.jobs.wait(job.id)
        (delivery,) = client.webhooks.deliveries(hook.id)
        done = settled(client, hook.id, delivery.id)
        assert (done.state, done.tries, done.status, done.error) == ("delivered", 3, 204, None)
        assert len(heard) == 3
        for headers, body in heard:
            told = Webhook(hook.secret).verify(body, headers)
            assert (told["type"], told["data"]["job"]) == ("job.cancelled", job.id)
        assert {headers["webhook-id"] for headers, _ in heard} == {delivery.id}
        again = client.webhooks.redeliver(hook.id, delivery.id)
        settled(client, hook.id, again.id)
        assert heard[-1][1] == heard[0][1]
        assert len(heard) == 4


def test_the_example_takes_what_is_ours_and_nothing_else() -> None:
    port = free_port()
    command = [sys.executable, str(EXAMPLE), SECRET, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as example:
        assert example.stdout is not None
        try:
            wait_until(lambda: _listens(port), 20)
            true = WebhookRequest("dlv_1", f"http://127.0.0.1:{port}/", json.dumps(TOLD), (SECRET,), datetime.now(UTC))
            forged = replace(true, secrets=("whsec_" + base64.b64encode(b"another secret of theirs").decode(),))
            assert delivering.send(forged, private=True).status == 401
            assert delivering.send(true, private=True).status == 204
            assert example.stdout.readline() == "2026-01-01T00:00:00Z job.succeeded: {'job': 'job_1'}\n"
        finally:
            example.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_private_addresses_are_refused_before_anything_is_kept(client: Client) -> None:
    with pytest.raises(ApiError, match="PNC_WEBHOOK_PRIVATE"):
        client.webhooks.create("http://127.0.0.1:9/")
    assert list(client.webhooks.list()) == []


def test_a_name_that_leads_inside_is_not_connected_to() -> None:
    with receiving(lambda receiver: receiver.reply(204)) as (url, heard):
        hidden = url.replace("127.0.0.1", "2130706433")  # a name without an address in it, which resolves to loopback
        answer = delivering.send(letter(hidden), private=False)
        assert answer.status is None
        assert "got 127.0.0.1" in (answer.error or "")
        assert heard == []
        assert delivering.send(letter(hidden), private=True).error is None
        headers, body = heard[0]
        assert headers["Host"] == hidden.split("/")[2]
        assert json.loads(body) == {"type": "webhook.test"}


def test_the_certificate_must_be_the_name_s_though_the_connection_goes_to_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority, server, trusting = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("hooks.example").configure_cert(server)
    authority.configure_trust(trusting)

    async def leads_here(name: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(anyio, "getaddrinfo", leads_here)
    with receiving(lambda receiver: receiver.reply(204), server) as (url, heard):
        right, wrong = (letter(url.replace("http://127.0.0.1", f"https://{n}.example")) for n in ("hooks", "other"))
        assert "CERTIFICATE_VERIFY_FAILED" in (delivering.send(right, private=True).error or "")
        monkeypatch.setattr(httpx, "AsyncClient", functools.partial(httpx.AsyncClient, verify=trusting))
        assert delivering.send(right, private=True).error is None
        assert "Hostname mismatch" in (delivering.send(wrong, private=True).error or "")
    assert [headers["Host"].partition(":")[0] for headers, _ in heard] == ["hooks.example"]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_into_the_network_is_not_followed(status: int) -> None:
    """A receiver may redirect to an unchecked address; no message must be sent there."""
    with receiving(lambda receiver: receiver.reply(204)) as (inside, overheard):

        def redirect(receiver: Receiver) -> None:
            receiver.reply(status, b"x" * 5000, Location=inside, Refresh=f"0; url={inside}")

        with receiving(redirect) as (url, heard):
            answer = delivering.send(letter(url), private=True)
    assert (answer.status, answer.error) == (status, f"expected 2xx, got {status}")
    assert answer.text == "x" * 1024  # long responses are truncated
    assert len(heard) == 1
    assert overheard == []


def test_a_receiver_that_drips_is_left_after_the_time_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "SECONDS", 0.6)
    stop = threading.Event()

    def drip(receiver: Receiver) -> None:
        receiver.send_response(200)
        receiver.send_header("Content-Length", "1000")
        receiver.end_headers()
        while not stop.wait(0.2):  # each byte arrives within the read timeout
            try:
                receiver.wfile.write(b"x")
            except OSError:
                return

    with receiving(drip) as (url, _):
        began = time.monotonic()
        answer = delivering.send(letter(url), private=True)
        stop.set()
    assert answer.status is None
    assert "within 0.6 s" in (answer.error or "")
    assert time.monotonic() - began < 30


def test_nobody_there_is_an_answer_too() -> None:
    with receiving(lambda receiver: receiver.reply(204)) as (url, _):
        pass
    assert "got ConnectError" in (delivering.send(letter(url), private=True).error or "")
