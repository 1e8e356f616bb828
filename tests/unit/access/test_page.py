"""Pages ask for a key once, and keep it where scripts and other sites cannot reach."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.access import keys
from app.access.keys import COOKIE
from app.access.tables import AuditRow
from app.errors import Unauthenticated
from app.main import create_app
from app.settings import Settings
from app.web.page_context import PageContext
from tests.unit import seeds
from tests.unit.inprocess import InProcess
from tests.unit.keyed import OWN, new_key

OURS = {"Origin": "http://localhost:8000"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    """The application with pages and keys."""
    seeds.lay_database(tmp_path)
    app = create_app(Settings(data_dir=tmp_path, require_keys=True, internal_key=OWN))
    yield app
    app.state.zoo.close()


@pytest.fixture
def http(app: FastAPI) -> Iterator[httpx.Client]:
    """A browser."""
    with InProcess(app) as transport, httpx.Client(base_url="http://localhost:8000", transport=transport) as client:
        yield client


def test_signing_in_and_out_is_told(app: FastAPI, http: httpx.Client) -> None:
    _, secret = new_key(app.state.zoo, ["read"])
    http.post("/sign-in", data={"key": secret}, headers=OURS)
    http.get("/sign-out")
    http.post("/sign-in", data={"key": "pnc_wrong"}, headers=OURS)
    with app.state.zoo.database.read() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
        assert [(row.action, row.path, row.outcome) for row in rows] == [
            ("sign_in", "/sign-in", "303"),
            ("sign_out", "/sign-out", "303"),
        ]


def test_a_visitor_without_a_key_is_sent_to_the_sign_in(http: httpx.Client) -> None:
    for path in ("/", "/models/a", "/deployments", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), path
    page = http.get("/sign-in")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_a_browser_gets_a_key_of_its_own_and_gives_it_back(app: FastAPI, http: httpx.Client) -> None:
    _, secret = new_key(app.state.zoo, ["read"])
    answer = http.post("/sign-in", data={"key": secret}, headers=OURS)
    cookie = answer.headers["set-cookie"]
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert secret not in cookie
    mine = http.cookies[COOKIE]
    assert http.get("/v1/models").status_code == 200
    http.get("/sign-out")
    assert http.get("/v1/models", headers={"Cookie": f"{COOKIE}={mine}"}).status_code == 401


def test_a_form_of_another_kind_is_refused(http: httpx.Client) -> None:
    answer = http.post("/sign-in", data={str(i): "x" for i in range(5)}, headers=OURS)
    assert answer.status_code == 422
    assert "expected a form with one field" in answer.text


@pytest.mark.parametrize("given", ["", "pnc_wrong", "<script>alert(1)</script>", "x" * 4000])
def test_a_wrong_key_is_refused_and_not_repeated(http: httpx.Client, given: str) -> None:
    answer = http.post("/sign-in", data={"key": given}, headers=OURS)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert not given or given not in answer.text


def test_a_form_that_is_longer_than_any_key_is_refused_before_it_is_read(http: httpx.Client) -> None:
    answer = http.post("/sign-in", data={"key": "x" * 10_000}, headers=OURS)
    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers
    assert "x" * 100 not in answer.text


def test_another_site_can_sign_nobody_in(app: FastAPI, http: httpx.Client) -> None:
    _, secret = new_key(app.state.zoo, ["read"])
    answer = http.post("/sign-in", data={"key": secret}, headers={"Origin": "http://evil.example"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_a_key_that_may_not_read_sees_no_page(app: FastAPI, http: httpx.Client) -> None:
    _, secret = new_key(app.state.zoo, ["write"])
    assert http.get("/models/a", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 403


class Answering:
    """A serving process that always answers."""

    asked = 0

    async def fetch(self, *_: object, **__: object) -> tuple[int, bytes]:
        self.asked += 1
        return 200, b"{}"


def test_an_open_page_asks_nothing_more_once_its_key_is_revoked(app: FastAPI) -> None:
    key_id, secret = new_key(app.state.zoo, ["read"])
    with app.state.zoo.database.write() as session:
        caller = keys.authenticate(session, secret)
    serving: Any = Answering()
    context = PageContext(app.state.zoo, serving).seen_by(caller, "")
    assert anyio.run(functools.partial(context.classify, "digits", b"", "modules="))["status"] == 200
    with app.state.zoo.seen_by(caller).database.write() as session:
        keys.revoke(session, key_id)
    with pytest.raises(Unauthenticated):
        anyio.run(functools.partial(context.classify, "digits", b"", "modules="))
    assert serving.asked == 1
