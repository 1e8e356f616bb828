"""A client that disconnects in the middle of its body causes at most one line in the log."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.integration.conftest import wait_until
from tests.listeners import alone
from tests.unit import seeds

BYTES = 200_000
FRAMES: dict[str, tuple[str, bytes]] = {
    "length": (f"Content-Length: {BYTES}", b'{"name": "' + b"x" * (BYTES // 2)),
    "chunks": ("Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 0x8000),
    "nothing": (f"Content-Length: {BYTES}", b""),
}
SERVED = ["POST /v1/deployments/digits/predict", "POST /v2/models/digits/infer", "POST /internal/sync/digits"]
WRITTEN = [
    "POST /v1/uploads",
    "POST /v1/models",
    "POST /v1/cloning-jobs",
    "PUT /v1/deployments/digits",
    "PATCH /v1/models/low",
    "POST /sign-in",
    "POST /_nicegui/client/none/upload/1",
    *SERVED[:2],
]


def _abort(url: str, request: str, frame: str, kind: str) -> None:
    """Send a part of a body and close the connection."""
    place, (header, part) = urlsplit(url), FRAMES[frame]
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 80), 30) as connection:
        head = f"{request} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {kind}\r\n{header}\r\n\r\n"
        connection.sendall(head.encode() + part)


def _complaints(log: Path) -> list[str]:
    """Log lines that a client's disconnect must not cause."""
    lines = log.read_text().splitlines()
    return [line for line in lines if "Traceback" in line or "Error" in line or " ERROR " in line or "File " in line]


def test_an_aborted_body_leaves_no_traceback_at_the_api(tmp_path: Path) -> None:
    zoo = seeds.new_zoo(tmp_path)
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low")
    with alone("api", zoo) as (url, _):
        for frame in FRAMES:
            announced = httpx.post(f"{url}/v1/uploads", json={"bytes": BYTES, "sha256": "0" * 64}).json()["id"]
            for request in [*WRITTEN, f"PUT /v1/uploads/{announced}/content"]:
                kind = "application/octet-stream" if request.endswith("content") else "application/json"
                _abort(url, request, frame, kind)
            shown, sent = f"{url}/v1/uploads/{announced}", {"length": len(FRAMES["length"][1])}
            # The received bytes are kept, and the transfer continues after them.
            wait_until(lambda: httpx.get(shown).json()["received"] == sent.get(frame, 0), 30)  # noqa: B023 - at once
    zoo.close()
    assert _complaints(tmp_path / "api.log") == []
    assert len((tmp_path / "api.log").read_text().splitlines()) < 2 * len(FRAMES) * len(WRITTEN)


def test_an_aborted_body_leaves_no_traceback_at_serving(tmp_path: Path) -> None:
    zoo = seeds.new_zoo(tmp_path)
    with alone("serve", zoo) as (url, _):
        for frame in FRAMES:
            for request in SERVED:
                _abort(url, request, frame, "application/json")
        _wait_for_answers(url)
    zoo.close()
    assert _complaints(tmp_path / "serve.log") == []


def _wait_for_answers(url: str) -> None:
    """Wait until later requests are answered; then the event loop has handled the disconnects."""
    for _ in range(5):
        assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
