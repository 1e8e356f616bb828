"""What a request is made of, and what is done when it fails."""

import hashlib
from pathlib import Path

import httpx
import pytest

from app.zoo import Zoo
from pnc_client import ApiError, Client, InvalidName, ServiceUnreachable
from pnc_client.http import path_of
from tests.unit import seeds
from tests.unit.client.breaking import Breaking


@pytest.mark.parametrize("name", ["digits#3", "digits?archived=true", "digits;x"])
def test_a_name_with_a_mark_in_it_is_no_other_resource(client: Client, name: str) -> None:
    client.models.create("digits")
    with pytest.raises(ApiError, match="not_found"):
        client.models.archive(name)
    assert [model.name for model in client.models.list()] == ["digits"]


@pytest.mark.parametrize("name", ["", ".", "..", "x/../digits", "digits/versions/1", "digits%2F", "digits\\1"])
def test_a_name_that_leads_elsewhere_is_not_sent(client: Client, line: Breaking, name: str) -> None:
    with pytest.raises(InvalidName, match="expected a name or an id"):
        client.models.archive(name)
    assert line.requests == []


def test_a_path_keeps_what_names_may_hold() -> None:
    assert path_of("models", "a.b_c-1", "versions", 3) == "/v1/models/a.b_c-1/versions/3"
    assert path_of("models", "a@1 +é") == "/v1/models/a@1%20%2B%C3%A9"


def test_a_refusal_that_lasts_is_told_at_once(client: Client, line: Breaking) -> None:
    line.plan.append(httpx.Response(429, headers={"Retry-After": "60"}, json={"code": "too_many_requests"}))
    with pytest.raises(ApiError, match="too_many_requests"):
        client.models.get("a")
    assert (len(line.requests), line.pauses) == (1, [])


def test_a_stream_waits_for_a_busy_service(client: Client, line: Breaking, zoo: Zoo) -> None:
    with zoo.database.write() as session:
        job = seeds.module(session, zoo).job_id
    line.plan.extend(["cut", _busy(), "before"])
    numbers = [event.seq for event in client.jobs.events(job)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert (len(line.requests), line.pauses[1]) == (4, 3)
    line.plan.extend([_busy() for _ in range(4)])
    with pytest.raises(ApiError, match="database_unavailable"):
        list(client.jobs.events(job))


def test_an_upload_waits_for_a_busy_service(client: Client, line: Breaking, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(250)))
    line.plan.extend(["none", _busy()])
    assert client.uploads.push(file).status == "complete"
    assert line.pauses == [3]


def test_an_upload_to_a_service_that_stays_busy_is_given_up(client: Client, line: Breaking, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(250)))
    line.plan.extend(["none", *[_busy() for _ in range(4)]])
    with pytest.raises(ApiError, match="database_unavailable"):
        client.uploads.push(file)
    assert [request.method for request in line.requests] == ["POST", "PUT", "GET", "GET", "GET"]


def test_a_download_is_begun_again(client: Client, line: Breaking, zoo: Zoo, tmp_path: Path) -> None:
    with zoo.database.write() as session:
        module = seeds.module(session, zoo).id
    line.plan.extend(["none", _busy(), "cut"])
    bundle = client.modules.download(module, "full", tmp_path / "bundle")
    (full,) = (b for b in client.modules.get(module).bundles if b.payload == "full")
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() == full.digest
    assert line.pauses[0] == 3


@pytest.fixture
def served(client: Client, line: Breaking, zoo: Zoo) -> str:
    """A module that fits the deployment `digits`, of generation 1."""
    with zoo.database.write() as session:
        module = seeds.module(session, zoo).id
    client.deployments.create("digits", "low")
    line.requests.clear()
    return module


def test_a_lost_answer_to_a_change_is_no_refusal(client: Client, line: Breaking, served: str) -> None:
    line.plan.append("before")  # never sent: safe to send again
    assert client.deployments.attach("digits", served, if_match=1).generation == 2
    line.plan.append("after")
    with pytest.raises(ServiceUnreachable, match="may have been made"):
        client.deployments.detach("digits", served, if_match=2)
    assert client.deployments.get("digits").desired.modules == []
    with pytest.raises(ApiError, match="412"):
        client.deployments.attach("digits", served, if_match=2)


@pytest.mark.usefixtures("served")
def test_what_a_lost_attempt_has_deleted_is_deleted(client: Client, line: Breaking) -> None:
    line.plan.append("after")
    client.deployments.delete("digits", if_match=1)
    assert [request.method for request in line.requests] == ["DELETE", "DELETE"]
    line.plan.append("before")  # not this client's doing
    with pytest.raises(ApiError, match="not_found"):
        client.deployments.delete("digits")
    line.plan.append("after")  # the module's name is wrong, whatever happened
    with pytest.raises(ApiError, match="not_found"):
        client.deployments.detach("digits", "mod_x")


@pytest.mark.parametrize("url", ["http://localhost:abc", "http://[::1", "localhost:8000", "http://", "http://xn--"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ServiceUnreachable, match="expected an address"):
        Client(url)


@pytest.mark.parametrize("text", ["<h1>It works!</h1>", "[1]", '{"data": 3}', '{"items": []}', "null", '"ok"'])
def test_another_server_at_the_address_is_told(text: str) -> None:
    other = httpx.MockTransport(lambda _: httpx.Response(200, text=text))
    with Client("http://localhost:8000", transport=other) as client:
        for ask in (client.alive, lambda: list(client.models.list()), lambda: client.modules.manifest("mod_1")):
            with pytest.raises(ServiceUnreachable, match="is the address right"):
                ask()


@pytest.mark.parametrize("errors", [["x"], {"a": 1}, 3, [{"message": "x"}]])
def test_another_servers_refusal_is_an_error_of_the_client(client: Client, line: Breaking, errors: object) -> None:
    line.plan.append(httpx.Response(404, json={"detail": "nothing here", "errors": errors}))
    with pytest.raises(ApiError, match="nothing here"):
        client.models.get("a")


def _busy() -> httpx.Response:
    return httpx.Response(503, headers={"Retry-After": "3"}, json={"code": "database_unavailable"})
