"""An answer of the serving process that breaks off after its head has come."""

import json
from collections.abc import AsyncIterator, Callable

import anyio
import httpx
import pytest

from app.deployments import service as deployments
from app.deployments.gateway import Gateway
from app.settings import Settings
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing

ERRORS = [httpx.ReadError("gone"), httpx.RemoteProtocolError("cut off"), httpx.ReadTimeout("slow")]


class Broken(httpx.AsyncByteStream):
    """Some bytes, then an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"half'
        raise self._error


@pytest.fixture
def break_off(serving: FakeServing) -> Callable[..., None]:
    """Let every answer break off from now on, after or before what was asked for is done."""

    def begin(error: Exception, done: bool = True) -> None:
        whole = serving.transport.handler

        def broken(request: httpx.Request) -> httpx.Response:
            if done:
                whole(request)
            return httpx.Response(200, headers={"Content-Type": "application/json"}, stream=Broken(error))

        serving.transport.handler = broken

    return begin


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/deployments/digits/predict"), ("GET", "/v2/models/digits"), ("GET", "/v2")]
)
def test_a_broken_answer_is_503_and_says_when_to_come_again(
    http: httpx.Client, break_off: Callable[..., None], error: Exception, method: str, path: str
) -> None:
    break_off(error)
    answer = http.request(method, path, content=b"\x89PNG image" if method == "POST" else None)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert type(error).__name__ in answer.text


@pytest.mark.parametrize(("done", "status"), [(True, 200), (False, 202)], ids=["served by now", "not yet"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_attach_that_was_committed_is_told_as_what_it_is(
    http: httpx.Client, zoo: Zoo, break_off: Callable[..., None], error: Exception, done: bool, status: int
) -> None:
    with zoo.database.write() as session:
        module = seeds.module(session, zoo).id
        deployments.put(session, "digits", "low")
    break_off(error, done)
    answer = http.put(f"/v1/deployments/digits/modules/{module}")
    told = answer.json()
    assert answer.status_code == status
    assert (told["generation"], told["desired"]["modules"]) == (2, [module])
    assert (told["observed"]["generation"] == 2) is done


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_pages_hear_503_as_well(error: Exception) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Broken(error)))

    async def ask() -> tuple[int, bytes]:
        gateway = Gateway(Settings(serving_url="http://serving"), transport)
        try:
            return await gateway.fetch("GET", "v1", "anything")
        finally:
            await gateway.close()

    status, body = anyio.run(ask)
    assert status == 503
    assert json.loads(body)["code"] == "serving_unreachable"
