"""Files that an import downloads from a real HTTP server."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.imports.sources import SourceError, parse
from app.sources import web
from app.sources.found import Rules
from app.sources.resolving import found_at
from pnc_core.errors import Cancelled

pytestmark = pytest.mark.integration
CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves one file, with and without its length, and redirects."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        places = {"/moved.th": "/file.th", "/loop": "/loop", "/out.th": "http://other.invalid/file.th"}
        if path in places:
            self.send_response(302)
            self.send_header("Location", places[path])
            self.end_headers()
        elif path in ("/file.th", "/unknown-length.th", "/short.th"):
            self.send_response(200)
            if path != "/unknown-length.th":
                self.send_header("Content-Length", str(len(CONTENT) + (path == "/short.th")))
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


LOCAL = Rules(hosts=("127.0.0.1",), own_machine=True)


@pytest.mark.parametrize("name", ["file.th", "moved.th", "unknown-length.th"])
def test_a_file_is_written_whole_with_its_digest_and_progress(site: str, tmp_path: Path, name: str) -> None:
    seen: list[tuple[int, int]] = []
    rules = Rules(hosts=("127.0.0.1",), own_machine=True, report=lambda done, total: seen.append((done, total)))
    fetched = web.fetch(f"{site}/{name}", tmp_path / "a" / "x.th", rules, prefix=DIGEST[:8])
    assert (fetched.digest, fetched.path.read_bytes()) == (DIGEST, CONTENT)
    assert seen[-1] == (len(CONTENT), 0 if name == "unknown-length.th" else len(CONTENT))


@pytest.mark.parametrize(
    ("name", "rules", "message"),
    [
        ("none.th", LOCAL, "expected a file, got 404"),
        ("out.th", LOCAL, "expected a host among 127.0.0.1, got other.invalid"),
        ("loop", LOCAL, "expected at most 5 redirects"),
        ("file.th", Rules(hosts=("127.0.0.1",)), "expected a public address, got a private one"),
        ("file.th", Rules(hosts=("other.example",), own_machine=True), "expected a host among other.example"),
        ("file.th", Rules(hosts=("127.0.0.1",), own_machine=True, max_bytes=1000), "expected at most 1000 bytes"),
        (
            "unknown-length.th",
            Rules(hosts=("127.0.0.1",), own_machine=True, max_bytes=1000),
            "expected at most 1000 bytes",
        ),
        ("short.th", LOCAL, "expected a download"),
    ],
)
def test_what_is_not_allowed_leaves_no_file(site: str, tmp_path: Path, name: str, rules: Rules, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        web.fetch(f"{site}/{name}?token=secret", tmp_path / "x.th", rules)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_digest_leaves_no_file(site: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="whose SHA-256 begins with 00000000"):
        web.fetch(f"{site}/file.th", tmp_path / "x.th", LOCAL, prefix="00000000")
    assert list(tmp_path.iterdir()) == []


def test_a_download_can_be_stopped(site: str, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        web.fetch(f"{site}/file.th", tmp_path / "x.th", Rules(hosts=("127.0.0.1",), own_machine=True, report=stop))
    assert list(tmp_path.iterdir()) == []


def test_the_origin_of_a_url_has_no_query(site: str) -> None:
    with found_at(parse(f"{site}/moved.th?token=secret"), LOCAL) as found:
        assert found.origin.source == found.origin.url == f"{site}/moved.th"
        assert (found.origin.file, found.origin.digest) == ("moved.th", DIGEST)


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected a download, got: .*; check the network"):
        web.fetch("http://127.0.0.1:9/file.th", tmp_path / "x.th", LOCAL)
