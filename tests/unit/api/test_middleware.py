"""Every answer says what a browser may do with it, and no page of ours names another host."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from nicegui import core

from app.access.keys import COOKIE
from app.api import middleware
from app.api.openapi.pages import _FILES_PATH, _TYPES
from app.deployments import service as deployments
from app.jobs import service as jobs
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.api.test_paths import PAGES, operations
from tests.unit.inprocess import FakeServing, InProcess
from tests.unit.keyed import client_of, keyed_app, new_key

ELSEWHERE = re.compile(r"""(?:https?:|wss?:|["'(=]\s*)//[a-z0-9.-]+""", re.IGNORECASE)
NAMESPACES = {"http://www.w3.org"}
"""Names of XML vocabularies, which nobody loads."""


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing) -> Iterator[FastAPI]:
    with keyed_app(tmp_path, serving) as app:
        yield app


@contextmanager
def browser_of(app: FastAPI, secret: str | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A client of the API and of pages, which want to know the event loop that they run on."""
    with client_of(app, secret) as http:
        transport = http._transport
        assert isinstance(transport, InProcess)
        monkeypatch.setattr(core, "loop", transport.loop())
        http.headers["Cookie"] = f"{COOKIE}={secret}"
        yield http


def check(answer: httpx.Response, about: object) -> None:
    for name in middleware.HEADERS:
        assert len(answer.headers.get_list(name)) == 1, (about, name)
    policy = answer.headers["content-security-policy"]
    for directive in ("frame-ancestors 'none'", "base-uri 'none'", "default-src "):
        assert directive in policy, (about, directive)
    assert "http:" not in policy
    assert "https:" not in policy
    assert "*" not in policy


def test_every_route_page_file_and_error_has_the_headers(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo: Zoo = app.state.zoo
    with zoo.database.write() as session:
        job = jobs.submit(session, seeds.request(session, zoo)).id
        jobs.cancel(session, job)
        deployments.put(session, "digits", "low")
    _, secret = new_key(zoo, ["read", "write", "jobs", "deploy", "admin"])
    asked = [(method, path) for method, path, _, _ in operations(app)]
    asked += [
        ("GET", path) for path in (*PAGES, *(f"{_FILES_PATH}/{name}" for name in _TYPES), "/nothing", "/v2/nothing")
    ]
    asked += [("GET", f"/v1/cloning-jobs/{job}/events/stream"), ("HEAD", "/v1/models"), ("PUT", "/v1/models")]
    asked += [("OPTIONS", "/v1/models"), ("GET", "/v1/models%2F"), ("GET", "/_nicegui_ws/socket.io/?EIO=4")]
    statuses = set()
    for given in (None, secret):
        with browser_of(app, given, monkeypatch) as http:
            for method, path in asked:
                answer = http.request(method, path, json={} if method != "GET" else None)
                check(answer, (method, path))
                statuses.add(answer.status_code)
    assert {200, 303, 400, 401, 404, 405, 422} <= statuses


def test_refusals_of_the_guard_and_errors_of_our_own_have_them(app: FastAPI) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError

    with client_of(app, None) as http:
        for path, headers, status in (("/", {"Host": "evil.example"}, 403), ("/broken", {}, 500)):
            answer = http.get(path, headers=headers)
            check(answer, path)
            assert answer.status_code == status


def test_nothing_but_pages_and_documents_may_run_anything(app: FastAPI) -> None:
    with client_of(app, None) as http:
        for path in ("/healthz", "/openapi.json", "/v1/models", "/nothing", f"{_FILES_PATH}/swagger-ui.css"):
            assert http.get(path).headers["content-security-policy"].startswith("default-src 'none';"), path


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_documents_run_their_own_scripts_and_no_others(app: FastAPI, path: str) -> None:
    with client_of(app, None) as http:
        answer = http.get(path)
        rules: dict[str, Any] = {
            name: sources.split()
            for name, _, sources in (
                rule.strip().partition(" ") for rule in answer.headers["content-security-policy"].split(";")
            )
        }
        assert "'unsafe-inline'" not in rules["script-src"]
        inline = len(re.findall(r"<script>", answer.text))
        assert len([source for source in rules["script-src"] if source.startswith("'sha256-")]) == inline
        for source in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
            assert http.get(source).status_code == 200, source


def test_no_page_names_another_host(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = new_key(app.state.zoo, ["read"])
    pages = ("/", "/datasets", "/jobs", "/modules", "/deployments", "/compare", "/new", "/sign-in", "/docs", "/redoc")
    with browser_of(app, secret, monkeypatch) as http:
        for path in (*pages, "/models/nothing"):
            answer = http.get(path)
            assert answer.headers["content-type"].startswith("text/html"), path
            found = set(ELSEWHERE.findall(answer.text)) - NAMESPACES
            assert found == set(), path
