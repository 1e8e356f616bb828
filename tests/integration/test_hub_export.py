"""An export to the Hugging Face Hub: its own client uploads to a local server that speaks the protocol."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

TOKEN = "hf_onlyfortests"
UPLOAD = """
import sys
from pathlib import Path
from app.imports.sources import SourceError
from app.sources.exporting import upload
try:
    print(upload(Path(sys.argv[1]), "somebody/digits", private=True))
except SourceError as error:
    sys.exit(str(error))
"""


class Hub(ThreadingHTTPServer):
    """Repositories in memory: files by path, after a commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.created: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}
        self.token = TOKEN

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Requests(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer({"id": "somebody/digits", "sha": "0" * 40, "siblings": [], "private": True})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path.endswith("/api/repos/create"):
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/somebody/digits"})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.server.url}/somebody/digits/commit/1"}
            )
        else:
            self._answer({"warnings": [], "errors": []})

    def _answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def _upload(hub: Hub, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", UPLOAD, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_all_files_of_an_export_arrive(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    files = {
        "README.md": b"---\ntags: []\n---\n# digits\n",
        "config.json": b"{}",
        "model.safetensors": bytes(range(256)),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    done = _upload(hub, folder, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert hub.files == files
    (repository,) = hub.created
    assert (repository["organization"], repository["name"]) == ("somebody", "digits")
    assert repository.get("private") is True or repository.get("visibility") == "private"
    assert hub.url in done.stdout


def test_a_refused_token_is_one_line(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    hub.token = "another"
    done = _upload(hub, folder, tmp_path / "home")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("hf://somebody/digits: expected an upload, got: ")
    assert line.endswith("; set HF_TOKEN")
    assert TOKEN not in done.stderr
    assert hub.files == {}
