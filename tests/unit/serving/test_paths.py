"""The serving process on a port of its own, and behind the API: no spelling of a path opens it further."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import select
from starlette.types import ASGIApp

from app.access.tables import AuditRow
from app.api.protocol import CALLS
from app.deployments import service as deployments
from app.errors import Misconfigured
from app.main import create_app
from app.serving.auth import check_routes
from app.serving.main import create_serving_app
from app.serving.protocol import routes as oip
from app.zoo import Zoo
from tests.unit.api import spelling
from tests.unit.api.spelling import spellings
from tests.unit.keyed import OWN, new_key
from tests.unit.serving import world
from tests.unit.serving.world import NAME, World

SCOPES = ("read", "write", "jobs", "deploy", "admin")


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[World]:
    """A zoo with real networks that asks for keys."""
    made = world.make(tmp_path, require_keys=True, internal_key=OWN)
    yield made
    made.zoo.close()


@contextmanager
def listening(app: ASGIApp) -> Iterator[tuple[str, int]]:
    """An application on a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield door.getsockname()[:2]
        server.should_exit = True
        thread.join(20)


def sent(address: tuple[str, int], method: str, target: bytes, secret: str | None, **headers: str) -> int:
    """Status of the answer to a request whose target is sent as it is."""
    lines = {"Host": f"localhost:{address[1]}", "Content-Length": "0", "Connection": "close", **headers}
    lines |= {"Authorization": f"Bearer {secret}"} if secret is not None else {}
    head = b"".join(f"{name}: {value}\r\n".encode() for name, value in lines.items())
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(method.encode() + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1])


def address_of(where: str) -> tuple[str, int]:
    host, _, port = where.partition(":")
    return host, int(port)


def attached(zoo: Zoo) -> list[str]:
    with zoo.database.read() as session:
        row = deployments.get(session, NAME)
        return [one.module_id for one in deployments.revision(session, row).attachments]


def told(zoo: Zoo) -> list[tuple[str, str]]:
    with zoo.database.read() as session:
        return [(row.action, row.outcome) for row in session.scalars(select(AuditRow).order_by(AuditRow.id))]


@pytest.mark.always
def test_a_read_key_attaches_nothing_through_the_api_however_it_spells_the_path(keyed: World) -> None:
    zoo, module = keyed.zoo, keyed.modules[0]
    _, reader = new_key(zoo, ["read"])
    _, deployer = new_key(zoo, ["deploy"])
    with world.serving(zoo.settings) as (back, _):
        settings = zoo.settings.model_copy(update={"serving_url": f"http://{back}", "pages": False})
        with listening(create_app(settings)) as address:
            load = f"/v2/repository/models/{NAME}+{module}/load"
            others = [
                "/v2/../metrics",
                f"/v2/../internal/sync/{NAME}",
                f"/v2/x/%2e%2e/%2e%2e/internal/sync/blue/{NAME}",
            ]
            for path in (load, load.replace("load", "unload"), f"/v1/deployments/{NAME}/modules/{module}"):
                others += [f"{path}/.", f"{path}/x/..", *spellings(path)[::7]]
            for raw in others:
                if raw.startswith("/"):
                    assert sent(address, "POST", raw.encode(), reader) == 400, raw
            assert sent(address, "POST", load.encode(), reader) == 403
            assert attached(zoo) == []
            assert told(zoo) == [("inference_load", "forbidden")]
            assert sent(address, "POST", load.replace("+", "%2B").encode(), deployer) == 200
            assert attached(zoo) == [module]
            assert told(zoo)[1:] == [("inference_load", "200")]
            assert sent(address, "POST", load.replace("load", "unload").encode(), deployer) == 200
            assert attached(zoo) == []
            assert told(zoo)[2:] == [("inference_unload", "200")]


def test_targets_that_are_no_paths_are_refused(keyed: World) -> None:
    _, secret = new_key(keyed.zoo, ["admin"])
    with world.serving(keyed.zoo.settings) as (back, _):
        for target in (
            b"*",
            b"v2",
            b"\\v2",
            b"/v2/\xff",
            b"/v2/\xc3\xbc",
            b"/v2/ x",
            b"http://localhost/v2/../metrics",
        ):
            assert sent(address_of(back), "POST", target, secret) in (400, 404), target
        assert told(keyed.zoo) == []


def test_whoever_asks_the_serving_process_itself_is_noted_as_well(keyed: World) -> None:
    zoo, module = keyed.zoo, keyed.modules[0]
    _, reader = new_key(zoo, ["read"])
    _, deployer = new_key(zoo, ["deploy", "read"])
    with world.serving(zoo.settings) as (back, _):
        address = address_of(back)
        load = f"/v2/repository/models/{NAME}+{module}/load".encode()
        assert sent(address, "POST", load, reader) == 403
        assert sent(address, "POST", load, deployer) == 200
        assert sent(address, "POST", f"/v2/repository/models/{NAME}+mod_0/load".encode(), deployer) == 404
        assert sent(address, "GET", f"/v2/models/{NAME}".encode(), deployer) == 200
    assert attached(zoo) == [module]
    assert told(zoo) == [("inference_load", outcome) for outcome in ("forbidden", "200", "404")]


@pytest.mark.always
def test_no_other_spelling_of_serving_s_own_paths_is_answered_to_anybody(keyed: World) -> None:
    app = create_serving_app(keyed.zoo.settings)
    keys: list[str | None] = [None, OWN, *(new_key(keyed.zoo, [scope])[1] for scope in SCOPES)]
    templates = {getattr(c, "path", None) or c.original_route.path for c in iter_route_contexts(app.routes)}  # type: ignore[attr-defined]
    paths = [path.replace("{deployment:path}", f"blue/{NAME}").replace("{name}", NAME) for path in templates]
    cases = sorted({raw for path in paths for raw in spellings(path.replace("{", "").replace("}", ""))})
    assert len(cases) > 1000
    internal = [(b"x-pnc-internal", OWN.encode()), (b"x-pnc-workspace", b"red")]
    answered: list[Any] = []

    async def ask_all() -> None:
        for raw in cases:
            scopes = [spelling.scope_of("POST", raw, secret) for secret in keys]
            as_passed_on = {**scopes[0], "headers": [*scopes[0]["headers"], *internal]}
            answered.extend([(await spelling.ask(app, scope), raw) for scope in (*scopes, as_passed_on)])

    with start_blocking_portal() as portal:
        portal.call(ask_all)
    assert [(raw, answer.status) for answer, raw in answered if answer.status != 400] == []
    app.state.host.registry.zoo.close()


def test_the_table_of_calls_is_that_of_serving_s_routes() -> None:
    served = [
        (method, route.path) for route in oip.routes for method in sorted(route.methods or ()) if method != "HEAD"
    ]
    assert sorted(served) == sorted((call.method, call.path) for call in CALLS)


def test_a_route_that_the_door_does_not_know_keeps_serving_from_starting() -> None:
    for method, path in (("POST", "/v2/models/{name}"), ("GET", "/elsewhere"), ("POST", "/metrics")):
        app = FastAPI(openapi_url=None)
        app.add_api_route(path, lambda: None, methods=[method])
        with pytest.raises(Misconfigured, match=r"app\.serving\.auth"):
            check_routes(app)
