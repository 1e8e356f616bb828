"""The supervisor starts a serving process again that says that it runs no networks any more."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app.process import pulse
from app.process.pulse import STOPPED, Pulse
from app.settings import Settings
from app.up import Child, Service, Shutdown


class _Ready(BaseHTTPRequestHandler):
    """Answers as it was told to."""

    status, code = 200, ""

    def do_GET(self) -> None:
        body = json.dumps({"code": self.code}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(pulse, "CHECK_SECONDS", 0.0)
    server = HTTPServer(("127.0.0.1", 0), _Ready)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "code", "stopped"), [(200, "", False), (503, "not_ready", False), (503, STOPPED, True)]
)
def test_only_its_own_word_counts(url: str, status: int, code: str, stopped: bool) -> None:
    _Ready.status, _Ready.code = status, code
    assert Pulse(url).has_stopped() is stopped


def test_no_answer_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "CHECK_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert not Pulse(f"http://127.0.0.1:{port}").has_stopped()


def test_it_is_killed_and_started_again(tmp_path: Path, url: str) -> None:
    _Ready.status, _Ready.code = 503, STOPPED
    shutdown = Shutdown()
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_server(("127.0.0.1", 0)) as back:
        service = Service(Settings(data_dir=tmp_path), door, back, shutdown)
    service._serving = url
    sleeps = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    service.children = [Child("serving", sleeps, dict(os.environ))]
    child = service.children[0]
    child.start()
    assert child.process is not None
    first = child.process
    thread = threading.Thread(target=service.watch)
    thread.start()
    deadline = time.monotonic() + 60
    while child.process is first and time.monotonic() < deadline:
        time.sleep(0.05)
    _Ready.status, _Ready.code = 200, ""
    shutdown.requested = True
    thread.join()
    service.stop()
    assert first.returncode == -9
    assert child.process is not first
