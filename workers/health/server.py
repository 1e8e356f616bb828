"""`/healthz` and `/readyz` of a worker, for the machine that watches over it.

`/healthz` fails when only a restart helps. `/readyz` also fails before the worker takes work, and while a lease cannot
be renewed, for instance because the database is away: a restart would not help then.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from app.errors import Misconfigured
from app.settings import Settings
from workers.health.vitals import Vitals

SECONDS = 10.0
"""Longest time that a request may take to arrive."""


class HealthServer:
    """Answers on a port of its own, on threads of its own.

    Args:
        settings: Address and port.
        vitals: The worker's signs of life.

    Raises:
        Misconfigured: the port cannot be used.
    """

    def __init__(self, settings: Settings, vitals: Vitals) -> None:
        assert settings.health_port is not None
        address = settings.host, settings.health_port
        try:
            self._server = ThreadingHTTPServer(address, _handler(vitals))
        except OSError as error:
            raise Misconfigured(
                f"PNC_HEALTH_PORT: expected a free port, got {address[0]}:{address[1]}: {error.strerror}; "
                "choose another"
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


def _handler(vitals: Vitals) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS
        server_version, sys_version = "pnc-worker", ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            status, answer = report(self.path, vitals)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: probes come every few seconds."""

    return Handler


def report(path: str, vitals: Vitals) -> tuple[int, dict[str, str]]:
    """Status and JSON answer for a path."""
    if path not in ("/healthz", "/readyz"):
        return 404, {"detail": "expected /healthz or /readyz, got another path"}
    reason = vitals.hanging()
    if reason is None and path == "/readyz":
        reason = vitals.starting() or vitals.losing()
    if reason is not None:
        return 503, {"status": "unwell", "detail": reason}
    return 200, {"status": "ok" if path == "/healthz" else "ready"}
