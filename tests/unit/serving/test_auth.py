"""Who may ask the serving process, and as whose."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.serving.auth import Auth, caller_of
from app.settings import Settings
from tests.unit import seeds
from tests.unit.inprocess import InProcess
from tests.unit.keyed import OWN, new_key


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    """Says whom the door has let in."""
    caller = caller_of(HTTPConnection(scope)) if "state" in scope else None
    await PlainTextResponse(caller.workspace if caller else "anybody")(scope, receive, send)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[tuple[httpx.Client, str]]:
    """A client of what is behind a door that asks for keys, and a key of the workspace `blue`."""
    zoo = seeds.new_zoo(tmp_path, require_keys=True, internal_key=OWN)
    _, secret = new_key(zoo, ["read"], "blue")
    door: Any = Auth(inside, zoo.settings, zoo)
    with InProcess(door) as transport, httpx.Client(base_url="http://localhost:8001", transport=transport) as client:
        yield client, secret
    zoo.close()


def test_the_api_says_whom_it_has_let_in(http: tuple[httpx.Client, str]) -> None:
    client, _ = http
    headers = {"X-PNC-Internal": OWN, "X-PNC-Workspace": "red"}
    for path in ("/v2/models/a", "/v1/deployments/a/predict"):
        assert client.get(path, headers=headers).text == "red"


@pytest.mark.parametrize("path", ["/internal/sync/a", "/internal/sync/red/a", "/metrics"])
def test_what_the_api_passes_on_for_somebody_is_never_a_request_of_its_own(
    http: tuple[httpx.Client, str], path: str
) -> None:
    client, _ = http
    assert client.get(path, headers={"X-PNC-Internal": OWN}).text == "default"
    answer = client.get(path, headers={"X-PNC-Internal": OWN, "X-PNC-Workspace": "red"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_monitor_gives_the_secret_as_it_does_to_the_api(http: tuple[httpx.Client, str]) -> None:
    client, _ = http
    headers = {"Authorization": f"Bearer {OWN}"}
    assert client.get("/metrics", headers=headers).status_code == 200
    assert client.post("/internal/sync/a", headers=headers).status_code == 401


def test_a_key_counts_for_its_own_workspace_whatever_a_header_says(http: tuple[httpx.Client, str]) -> None:
    client, secret = http
    headers = {"Authorization": f"Bearer {secret}", "X-PNC-Workspace": "red"}
    assert client.get("/v2/models/a", headers=headers).text == "blue"


def test_nobody_else_comes_in(http: tuple[httpx.Client, str]) -> None:
    client, secret = http
    key = {"Authorization": f"Bearer {secret}"}
    refused: list[tuple[str, dict[str, str], int]] = [
        ("/v2/models/a", {}, 401),
        ("/v2/models/a", {"X-PNC-Internal": "guess" * 8, "X-PNC-Workspace": "red"}, 401),
        ("/v2/models/a", {**key, "X-PNC-Internal": ""}, 401),
        ("/internal/sync/a", key, 401),
        ("/metrics", key, 401),
        ("/v2/repository/models/a+m/load", key, 403),
    ]
    for path, headers, status in refused:
        answer = client.post(path, headers=headers)
        assert answer.status_code == status, path
        assert ("error" in answer.json()) is path.startswith("/v2")
    assert client.get("/healthz").text == "anybody"


def test_without_keys_other_addresses_are_not_answered_and_sync_wants_the_proof(tmp_path: Path) -> None:
    zoo = seeds.new_zoo(tmp_path, internal_key=OWN)
    settings = Settings(data_dir=tmp_path, internal_key=OWN)
    door: Any = Auth(inside, settings, zoo)
    with InProcess(door) as transport, httpx.Client(base_url="http://localhost:8001", transport=transport) as client:
        assert client.get("/v2/models/a", headers={"X-PNC-Workspace": "red"}).text == "default"
        assert client.post("/internal/sync/a").status_code == 401
        assert client.get("http://10.0.0.1:8001/v2/models/a").status_code == 403
    zoo.close()
