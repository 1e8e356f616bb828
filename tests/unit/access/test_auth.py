"""Nobody comes in without a key, and a key opens what its scopes say."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.requests import HTTPConnection

from app.access import workspaces
from app.access.auth import Admission, Pace, check_exposure, is_loopback
from app.access.keys import COOKIE
from app.api import scopes
from app.api.scopes import PUBLIC, ScopedRoute, check_routes, needs
from app.errors import Forbidden, Misconfigured, TooMany
from app.jobs import service as jobs
from app.jobs.streams import watching
from app.main import create_app
from app.settings import Settings
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing
from tests.unit.keyed import OWN, client_of, keyed_app, new_key

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs", "/redoc"}
SHOWN = "/docs/files/{name}"
"""Scripts of `/docs`: open as well, and 404 for a name that is none."""


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing) -> Iterator[FastAPI]:
    """The application, which asks for keys."""
    with keyed_app(tmp_path, serving) as app:
        yield app


@pytest.fixture
def http(app: FastAPI) -> Iterator[httpx.Client]:
    """A stranger."""
    with client_of(app, None) as client:
        yield client


def routes(app: FastAPI) -> list[tuple[str, str, str]]:
    """Method, path and scope of every route, with something in place of its parameters."""
    needed = scopes.scopes(app)
    found = []
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        path = getattr(context, "path", None) or getattr(route, "path", None)
        methods = sorted(getattr(route, "methods", None) or ())
        found += [(method, path, needed.get(route.name, PUBLIC)) for method in methods]
    return found


def filled(path: str) -> str:
    return "/".join("1" if part.startswith("{") else part for part in path.split("/"))


@pytest.mark.always
def test_every_route_but_the_public_ones_wants_a_key(app: FastAPI, http: httpx.Client) -> None:
    found = routes(app)
    assert len(found) > 45
    for method, path, _ in found:
        answer = http.request(method, filled(path), json={})
        if path in OPEN:
            assert answer.status_code == 200, (method, path)
        elif path == SHOWN:
            assert answer.status_code == 404
        else:
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.always
def test_a_key_opens_what_its_scope_says_and_nothing_else(app: FastAPI) -> None:
    for scope in ("read", "write", "jobs", "deploy"):
        _, secret = new_key(app.state.zoo, [scope])
        with client_of(app, secret) as client:
            for method, path, needed in routes(app):
                if path in (*OPEN, SHOWN) or needed == "operator":
                    continue
                status = client.request(method, filled(path), json={}).status_code
                assert (status in (401, 403)) is (needed != scope), (method, path, needed)


def test_loading_by_the_inference_protocol_is_deploying(app: FastAPI) -> None:
    _, reader = new_key(app.state.zoo, ["read"])
    _, deployer = new_key(app.state.zoo, ["deploy"])
    for path in ("/v2/repository/models/a+m/load", "/v2/repository/models/a%2Bm/unload"):
        with client_of(app, reader) as client:
            assert client.post(path).status_code == 403
        with client_of(app, deployer) as client:
            assert client.post(path).status_code != 403


def test_numbers_of_all_workspaces_are_the_operators(app: FastAPI) -> None:
    _, admin = new_key(app.state.zoo, ["admin"])
    for secret, status in ((admin, 401), (None, 401), ("x", 401), (OWN, 200)):
        with client_of(app, secret) as client:
            assert client.get("/metrics").status_code == status


def test_a_route_that_does_not_say_what_it_needs_cannot_be_made() -> None:
    router = APIRouter(route_class=ScopedRoute)
    with pytest.raises(Misconfigured, match="add @needs"):
        router.get("/v1/forgotten")(lambda: None)


def test_a_route_beside_the_others_keeps_the_service_from_starting() -> None:
    app, router = FastAPI(docs_url=None, redoc_url=None), APIRouter()
    router.get("/v1/forgotten")(lambda: None)
    app.include_router(router)
    with pytest.raises(Misconfigured, match="/v1/forgotten"):
        check_routes(app, None)


def test_what_is_no_key_is_refused(http: httpx.Client) -> None:
    odd = ("", "Bearer", "Bearer ", "Basic cG5jOg==", "bearer pnc_", f"Bearer {'pnc_' + 'a' * 51}", "Bearer \xff")
    for header in odd:
        answer = http.get("/v1/models", headers=[(b"Authorization", header.encode("latin-1"))])
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), header


def test_a_wrong_header_is_not_mended_by_a_cookie(app: FastAPI, http: httpx.Client) -> None:
    _, secret = new_key(app.state.zoo, ["read"])
    assert http.get("/v1/models", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 200
    headers = {"Cookie": f"{COOKIE}={secret}", "Authorization": "Bearer x"}
    assert http.get("/v1/models", headers=headers).status_code == 401


def test_a_refusal_comes_before_the_body_is_read(http: httpx.Client) -> None:
    assert http.post("/v1/models", content=b"{not json").status_code == 401


def test_a_key_is_made_used_and_revoked(app: FastAPI) -> None:
    _, admin = new_key(app.state.zoo, ["admin"])
    with client_of(app, admin) as client:
        made = client.post("/v1/keys", json={"name": "ci", "scopes": ["read"], "days": 3}).json()
        assert made["secret"].startswith(made["hint"])
        listed = client.get("/v1/keys").json()["data"]
        assert made["secret"] not in str(listed)
        with client_of(app, made["secret"]) as other:
            mine = other.get("/v1/workspace").json()
            assert (mine["name"], mine["scopes"], mine["key"]) == ("default", ["read"], made["id"])
            assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
            assert other.get("/v1/workspace").status_code == 401


def test_a_revoked_key_ends_its_open_stream(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.02)
    zoo: Zoo = app.state.zoo
    key_id, secret = new_key(zoo, ["read"])
    _, admin = new_key(zoo, ["admin"])
    with zoo.database.write() as session:
        job = jobs.submit(session, seeds.request(session, zoo)).id
    ended = threading.Event()

    def listen() -> None:
        with client_of(app, secret) as client:
            text = client.get(f"/v1/cloning-jobs/{job}/events/stream").text
            assert "event: state" in text
            assert "event: end" not in text
            ended.set()

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.3)
    assert not ended.is_set()
    with client_of(app, admin) as client:
        client.delete(f"/v1/keys/{key_id}")
    thread.join(5)
    assert ended.is_set()


def test_what_was_done_with_a_key_is_told(app: FastAPI) -> None:
    key_id, secret = new_key(app.state.zoo, ["write", "admin"])
    with client_of(app, secret) as client:
        client.post("/v1/models", json={"name": "a"}, headers={"X-Request-ID": "mine"})
        client.post("/v1/models", json={"name": "a"})
        client.get("/v1/models")
        client.delete("/v1/models/none?token=canary")
        entries = client.get("/v1/audit").json()["data"]
        assert client.get("/v1/audit?key=key_other").json()["data"] == []
    told = [(e["action"], e["outcome"]) for e in reversed(entries)]
    assert told == [("create_model", "201"), ("create_model", "already_exists"), ("archive_model", "not_found")]
    assert entries[-1]["request_id"] == "mine"
    _, reader = new_key(app.state.zoo, ["read"])
    with client_of(app, reader) as other:
        assert other.get("/v1/audit").status_code == 403
        assert other.delete("/v1/models/a").status_code == 403
    with client_of(app, secret) as client:
        refused = client.get("/v1/audit").json()["data"][:2]
    assert [(e["action"], e["outcome"]) for e in refused] == [
        ("archive_model", "forbidden"),
        ("list_audit", "forbidden"),
    ]
    assert {e["key_id"] for e in entries} == {key_id}
    assert "canary" not in str(entries)
    assert secret not in str(entries)


def test_requests_of_a_key_are_paced(app: FastAPI) -> None:
    zoo: Zoo = app.state.zoo
    _, secret = new_key(zoo, ["read"], "slow")
    with zoo.database.write() as session:
        workspaces.get(session, "slow").requests_per_minute = 3
    with client_of(app, secret) as client:
        answers = [client.get("/v1/models") for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "too_many_requests"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(2):
        pace.check("a", 2)
    with pytest.raises(TooMany) as refused:
        pace.check("a", 2)
    pace.check("b", 2)
    now[0] = float(refused.value.seconds)
    pace.check("a", 2)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_are_not_served_without_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="PNC_REQUIRE_KEYS"):
        check_exposure(Settings(data_dir=tmp_path, host=host))
    with pytest.raises(Misconfigured, match="PNC_REQUIRE_KEYS"):
        create_app(Settings(data_dir=tmp_path, host=host))
    check_exposure(Settings(data_dir=tmp_path, host=host, require_keys=True, internal_key=OWN))
    with pytest.raises(Misconfigured, match="PNC_INTERNAL_KEY"):
        check_exposure(Settings(data_dir=tmp_path, host=host, require_keys=True))


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("0.0.0.0", False),
    ],
)
def test_what_counts_as_this_machine(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours


async def _ask(settings: Settings, server: tuple[str, int], zoo: Any) -> None:
    await Admission(settings, zoo)(HTTPConnection({"type": "http", "headers": [], "server": server}), "read")


@pytest.mark.parametrize("server", [("10.0.0.1", 80), ("172.17.0.2", 8000)])
def test_whatever_the_server_listens_on_nobody_answers_other_addresses(server: tuple[str, int], tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        anyio.run(_ask, Settings(data_dir=tmp_path), server, None)
    anyio.run(_ask, Settings(data_dir=tmp_path), ("127.0.0.1", 80), None)
    anyio.run(_ask, Settings(data_dir=tmp_path, published_on_loopback=True), server, None)


def test_needs_takes_known_scopes_alone() -> None:
    with pytest.raises(AssertionError):
        needs("everything")
