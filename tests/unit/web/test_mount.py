"""Pages and API share one address, and strangers' pages reach neither."""

from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import Message

from app.api.guard import Guard
from app.settings import Settings
from app.web.mount import Pages
from app.web.page_context import PageContext
from tests.unit.inprocess import FakeServing, InProcess, running_app


class NoServing:
    """A serving process that nobody asks."""

    async def sync(self, deployment: str, generation: int) -> Any:
        raise AssertionError

    async def fetch(self, *_: object, **__: object) -> tuple[int, bytes]:
        raise AssertionError


async def nobody(connection: Any, scope: str) -> Any:
    raise AssertionError


@pytest.mark.parametrize("path", ["/", "/models/a", "/jobs", "/new", "/_nicegui_ws/socket.io/", "/_nicegui/3/static/x"])
def test_pages_are_found(path: str, tmp_path: Path) -> None:
    pages = Pages(PageContext(None, NoServing()), nobody)  # type: ignore[arg-type]
    assert pages.matches({"type": "http", "path": path})[0] is Match.FULL


@pytest.mark.parametrize("path", ["/v1/models", "/v2/health/live", "/docs", "/openapi.json", "/healthz", "/elsewhere"])
def test_paths_of_the_api_are_left_alone(path: str) -> None:
    pages = Pages(PageContext(None, NoServing()), nobody)  # type: ignore[arg-type]
    assert pages.matches({"type": "http", "path": path})[0] is Match.NONE


def test_unknown_paths_and_methods_are_still_problems(tmp_path: Path) -> None:
    with (
        running_app(Settings(data_dir=tmp_path), FakeServing()) as app,
        InProcess(app) as transport,
        httpx.Client(base_url="http://localhost:8000", transport=transport) as http,
    ):
        assert http.get("/v1/nothing").json()["code"] == "not_found"
        assert http.get("/elsewhere").headers["content-type"] == "application/problem+json"
        assert http.put("/v1/models", json={}).headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("path", ["/elsewhere", "/v1/nothing", "/models/a/b"])
def test_a_browser_gets_a_page_for_an_unknown_path_and_a_program_a_problem(tmp_path: Path, path: str) -> None:
    with (
        running_app(Settings(data_dir=tmp_path), FakeServing()) as app,
        InProcess(app) as transport,
        httpx.Client(base_url="http://localhost:8000", transport=transport) as http,
    ):
        page = http.get(f"{path}/<script>", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "This page does not exist" in page.text
        assert "<script>" not in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]
        if not path.startswith("/models"):
            assert http.get(path).json()["code"] == "not_found"


def test_the_pages_can_be_left_out(tmp_path: Path) -> None:
    with (
        running_app(Settings(data_dir=tmp_path, pages=False), FakeServing()) as app,
        InProcess(app) as transport,
        httpx.Client(base_url="http://localhost:8000", transport=transport) as http,
    ):
        assert http.get("/").json()["code"] == "not_found"


def knock(headers: dict[str, str], tmp_path: Path, path: str = "/_nicegui_ws/socket.io/") -> list[Message]:
    """What a websocket's handshake gets from the guard; an open one is `inside`."""
    sent: list[Message] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "inside"})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "websocket", "path": path, "headers": raw}
    anyio.run(Guard(inside, Settings(data_dir=tmp_path)), scope, receive, send)
    return sent


def test_our_own_page_may_open_a_websocket(tmp_path: Path) -> None:
    assert knock({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, tmp_path) == [{"type": "inside"}]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:8000", "Origin": "http://evil.example"},
        {"Host": "localhost:8000", "Origin": "null"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "localhost:8000", "Origin": "http://localhost:9999"},
        {},
    ],
)
def test_other_pages_may_not(headers: dict[str, str], tmp_path: Path) -> None:
    assert knock(headers, tmp_path) == [{"type": "websocket.close", "code": 1008}]


def test_a_foreign_page_may_not_read_by_polling_either(tmp_path: Path) -> None:
    with (
        running_app(Settings(data_dir=tmp_path), FakeServing()) as app,
        InProcess(app) as transport,
        httpx.Client(base_url="http://localhost:8000", transport=transport) as http,
    ):
        path = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
        refused = http.get(path, headers={"Origin": "http://evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (403, "origin_not_allowed")


def test_an_application_with_pages_has_them_last(tmp_path: Path) -> None:
    with running_app(Settings(data_dir=tmp_path), FakeServing()) as app:
        assert isinstance(app, FastAPI)
        assert isinstance(app.router.routes[-1], Pages)
