"""The service as its own OpenAPI document describes it: every request is answered with the document's example."""

import re
from pathlib import Path
from typing import Any

import httpx

from app.settings import Settings
from tests.unit.inprocess import FakeServing, running_app

BUNDLE, THIN = b"test", b"thin"
"""Bytes whose SHA-256 are the digests of the document's bundles."""


class Described(httpx.BaseTransport):
    """Answers requests by the document, and notes which operations were called."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._operations = [
            (method.upper(), re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + r"\Z"), operation)
            for path, item in sorted(document["paths"].items(), key=lambda pair: pair[0].count("{"))
            for method, operation in item.items()
        ]
        self.called: list[str] = []
        self.sent: dict[str, bytes] = {}
        """Body of the last request of each operation."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        for method, path, operation in self._operations:
            if method == request.method and path.match(request.url.path):
                self.called.append(operation["operationId"])
                self.sent[operation["operationId"]] = request.content
                return self._answer(operation, request)
        raise AssertionError(f"not in the document: {request.method} {request.url.path}")

    def example(self, name: str) -> dict[str, Any]:
        """The example of an answer."""
        found: dict[str, Any] = self._document["components"]["schemas"][name]["examples"][0]
        return found

    def _answer(self, operation: dict[str, Any], request: httpx.Request) -> httpx.Response:
        status = next(status for status in operation["responses"] if status.startswith("2"))
        content = operation["responses"][status].get("content", {})
        if "text/event-stream" in content:
            return httpx.Response(200, text='event: end\ndata: {"state": "succeeded"}\n\n')
        if "application/octet-stream" in content:
            return httpx.Response(200, content=THIN if request.url.params.get("payload") == "thin" else BUNDLE)
        if not content:
            return httpx.Response(int(status))
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        return httpx.Response(int(status), json=self.example(name))


def described_by(folder: Path) -> dict[str, Any]:
    """The document of an application on a fresh zoo in this folder."""
    with running_app(Settings(data_dir=folder), FakeServing()) as app:
        return app.openapi()


def operations(document: dict[str, Any]) -> set[str]:
    """Ids of all operations."""
    return {operation["operationId"] for item in document["paths"].values() for operation in item.values()}
