"""Every route, every way to spell its path, every key: nobody gets more by another spelling, and nothing changes."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import select, text
from starlette.types import Message

from app.access.tables import AuditRow
from app.api import paths, scopes
from app.api.guard import Guard
from app.deployments import service as deployments
from app.errors import Invalid
from app.settings import Settings
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.api import spelling
from tests.unit.api.spelling import Raw, spellings
from tests.unit.inprocess import FakeServing
from tests.unit.keyed import OWN, keyed_app, new_key

GIVEN = {"name": "a+m", "model": "low", "version": "1", "deployment": "digits", "module": "mod_1", "alias": "best"}
PAGES = ("/", "/models/low", "/datasets", "/jobs/1", "/new", "/sign-in", "/sign-out", "/_nicegui/1/static/x.js")
KEYS = (None, "read", "write", "jobs", "deploy", "admin", "operator")
READS_THAT_ARE_TOLD = {"download_weights"}
"""Reading operations that the audit log records."""
READING_POSTS = {"predict", "predict_batch", "infer", "inference_index", "validate_job", "validate_spec", "recommend"}


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing) -> Iterator[FastAPI]:
    """The application, which asks for keys, with a deployment."""
    with keyed_app(tmp_path, serving) as app:
        zoo: Zoo = app.state.zoo
        with zoo.database.write() as session:
            seeds.version(session, zoo, "low")
            deployments.put(session, "digits", "low")
        yield app


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def ask(app: FastAPI, portal: BlockingPortal) -> Raw:
    return Raw(portal, app)


def secrets(zoo: Zoo) -> dict[str | None, str | None]:
    """The secret of a key with each scope, none, and that of the service itself."""
    made = {scope: new_key(zoo, [scope])[1] for scope in KEYS[1:-1] if scope is not None}
    return {None: None, **made, "operator": OWN}


def operations(app: FastAPI) -> list[tuple[str, str, str, str]]:
    """Method, path with real names in it, name and scope of every route."""
    needed, found = scopes.scopes(app), []
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        template = getattr(context, "path", None) or getattr(route, "path", None)
        for method in sorted(getattr(route, "methods", None) or ()):
            parts = (GIVEN.get(part[1:-1], "1") if part.startswith("{") else part for part in template.split("/"))
            found.append((method, "/".join(parts), route.name, needed.get(route.name, scopes.PUBLIC)))
    return found


def state(zoo: Zoo) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with zoo.database.read() as session:
        names = session.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        return {name: list(map(tuple, session.execute(text(f"SELECT * FROM {name}")))) for name in names}


def told(zoo: Zoo) -> list[tuple[str, str]]:
    """Action and outcome of every line of the audit log, oldest first."""
    with zoo.database.read() as session:
        lines = session.execute(select(AuditRow.action, AuditRow.outcome).order_by(AuditRow.id))
        return [(action, outcome) for action, outcome in lines]


@pytest.mark.always
def test_no_other_spelling_of_any_path_is_answered_to_anybody(
    app: FastAPI, portal: BlockingPortal, serving: FakeServing
) -> None:
    keys = secrets(app.state.zoo)
    asked = [(method, path) for method, path, _, _ in operations(app)] + [("GET", path) for path in PAGES]
    cases = sorted({(method, raw) for method, path in asked for raw in spellings(path)})
    assert len(cases) > 3000
    before, passed = state(app.state.zoo), []

    async def ask_all() -> None:
        for method, raw in cases:
            for scope, secret in keys.items():
                answer = await spelling.ask(app, spelling.scope_of(method, raw, secret))
                if answer.status != 400 or b'"code":"invalid_path"' not in answer.body:
                    passed.append((method, raw, scope, answer.status))

    portal.call(ask_all)
    assert passed == []
    assert serving.requests == []
    assert state(app.state.zoo) == before


def test_a_reserved_character_may_be_encoded_and_means_the_same(app: FastAPI, ask: Raw, serving: FakeServing) -> None:
    zoo: Zoo = app.state.zoo
    for secret in secrets(zoo).values():
        pairs = [("POST", f"/v2/repository/models/digits{plus}mod_1/load") for plus in ("+", "%2B", "%2b")]
        pairs += [("GET", f"/v1/models/low{at}1") for at in ("@", "%40")]
        for method in ("POST", "GET"):
            before = len(told(zoo))
            answers, lines = [], []
            for raw in (raw for one, raw in pairs if one == method):
                answers.append(ask(method, raw, secret).status)
                lines.append(told(zoo)[before:])
                before += len(lines[-1])
            assert len(set(answers)) == 1
            assert all(line == lines[0] for line in lines)
    assert {request.url.raw_path for request in serving.requests} == {b"/v2/repository/models/digits+mod_1/load"}
    assert [action for action, _ in told(zoo)].count("inference_load") == 3 * 5  # five keys, each refused or admitted


def test_whoever_changes_something_or_may_not_is_told_of_once(app: FastAPI, ask: Raw) -> None:
    zoo, found = app.state.zoo, operations(app)
    keys, known = secrets(zoo), len(told(zoo))
    for scope, secret in keys.items():
        for method, path, name, needed in found:
            status = ask(method, path, secret).status
            lines = told(zoo)[known:]
            known += len(lines)
            if scope is None or needed in (scopes.PUBLIC, "operator") or scope == "operator":
                assert lines == [], (method, path)
                continue
            if status == 403:
                assert lines == [(name, "forbidden")], (method, path, scope)
            else:
                is_told = needed != "read" or name in READS_THAT_ARE_TOLD
                assert [action for action, _ in lines] == ([name] if is_told else []), (method, path, scope)
            assert "internal_error" not in str(lines)


def test_what_a_read_key_may_send_changes_nothing(app: FastAPI) -> None:
    sent = {name for method, _, name, needed in operations(app) if needed == "read" and method not in ("GET", "HEAD")}
    assert sent == READING_POSTS


def test_the_path_is_sent_on_as_the_route_has_it(app: FastAPI, ask: Raw, serving: FakeServing) -> None:
    keys = secrets(app.state.zoo)
    calls = [one for one in operations(app) if one[1].startswith("/v2") or one[2] in ("predict", "predict_batch")]
    assert {needed for *_, needed in calls} == {"read", "deploy"}
    for method, path, _, needed in calls:
        ask(method, path.replace("+", "%2B"), keys[needed])
    sent = [(request.method, request.url.raw_path.decode()) for request in serving.requests]
    assert sent == [(method, path) for method, path, _, _ in calls]


@pytest.mark.parametrize("parts", [("..",), ("v2", "."), ("v2", ""), ("a/b",), ("a\\b",), ("%2e%2e",), ()])
def test_a_path_is_joined_of_parts_that_stay_parts(parts: tuple[str, ...]) -> None:
    if not parts:
        assert paths.join("v2", "models", "a+m@1 ü?#") == "/v2/models/a+m@1%20%C3%BC%3F%23"
        return
    with pytest.raises(Invalid, match="expected a name"):
        paths.join(*parts)


def test_a_server_that_decodes_twice_is_found_out() -> None:
    scope = spelling.scope_of("GET", "/v1/models/a%2Bm", None)
    assert paths.fault(scope) is None
    assert "decoded otherwise" in str(paths.fault({**scope, "path": "/v1/models/a m"}))
    assert "/openapi.json" in str(paths.fault(spelling.scope_of("GET", "/v1/../metrics", None)))


@pytest.mark.parametrize("raw", ["/_nicegui_ws/../v2", "//_nicegui_ws/socket.io/", "/_nicegui_ws/%2e/socket.io/"])
@pytest.mark.parametrize("can_answer", [True, False])
def test_a_websocket_at_another_spelling_is_refused(raw: str, can_answer: bool, tmp_path: Path) -> None:
    sent: list[Message] = []

    async def inside(*_: Any) -> None:
        sent.append({"type": "inside"})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    extensions = {"websocket.http.response": {}} if can_answer else {}
    scope = {**spelling.scope_of("GET", raw, None), "type": "websocket", "extensions": extensions, "subprotocols": []}
    anyio.run(functools.partial(Guard(inside, Settings(data_dir=tmp_path)), scope, receive, send))
    if can_answer:
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 400)
    else:
        assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_model_called_as_a_call_has_no_larger_body(
    app: FastAPI, serving: FakeServing, portal: BlockingPortal
) -> None:
    settings: Settings = app.state.zoo.settings
    guard = Guard(app, settings)
    for path in (
        "/v1/models/predict",
        "/v1/deployments/a/predict/all",
        "/v1/models/infer",
        "/v1/uploads/x/y/content",
        "/v2/repository/models/infer",
    ):
        assert guard._body_limit(path) == settings.max_body_bytes, path
    for path in (
        "/v1/deployments/a/predict",
        "/v1/deployments/a/predict/batch",
        "/v2/models/a/infer",
        "/v2/models/a/versions/1/infer",
    ):
        assert guard._body_limit(path) == settings.max_image_bytes, path
    assert guard._body_limit("/v1/uploads/x/content") is None


def test_a_call_that_is_none_is_answered_in_the_protocol_s_form(app: FastAPI, ask: Raw) -> None:
    secret = secrets(app.state.zoo)["read"]
    for method, path, status in (("GET", "/v2/nothing", 404), ("PUT", "/v2/models/a", 405)):
        answer = ask(method, path, secret)
        assert (answer.status, httpx.Response(200, content=answer.body).json().keys()) == (status, {"error"})
