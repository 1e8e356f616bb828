"""A client that goes away takes the call to the serving process along."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from app.api.leaving import Gone, WhileThere
from app.settings import Settings
from tests.unit.inprocess import FakeServing, running_app


class _Busy(httpx.AsyncBaseTransport):
    """A serving process that takes for ever, and notices who breaks off."""

    def __init__(self) -> None:
        self.called = self.broken_off = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.called += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        raise AssertionError


class _Client:
    """Sends a whole request, or a part of it, and closes the connection."""

    def __init__(self, *, whole: bool) -> None:
        self._messages = [{"type": "http.request", "body": b"{}", "more_body": not whole}]
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "root_path": "",
    }


@pytest.mark.parametrize("whole", [True, False], ids=["waits for the answer", "sends its body"])
@pytest.mark.parametrize("path", ["/v2/models/digits/infer", "/v1/deployments/digits/predict"])
def test_a_call_is_broken_off_when_nobody_waits_for_its_answer(
    tmp_path: Path, path: str, whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    busy, fake, client = _Busy(), FakeServing(), _Client(whole=whole)
    fake.transport = busy  # type: ignore[assignment]
    with running_app(Settings(data_dir=tmp_path, serving_url="http://serving"), fake) as app:
        asyncio.run(asyncio.wait_for(app(_scope(path), client.receive, client.send), 30))
    assert (busy.called, busy.broken_off) == (whole, whole)
    assert [message["status"] for message in client.sent if "status" in message] == [499]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def work() -> None:
        async with WhileThere(Request(_scope("/"), _never)):
            await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


def test_a_block_that_ends_in_time_is_not_touched() -> None:
    async def work() -> int:
        async with WhileThere(Request(_scope("/"), _Client(whole=True).receive)):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        return 7

    async def gone() -> None:
        with pytest.raises(Gone):
            async with WhileThere(Request(_scope("/"), _Client(whole=True).receive)):
                await asyncio.sleep(60)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    assert asyncio.run(work()) == 7
    asyncio.run(gone())


async def _never() -> Any:
    await asyncio.sleep(60)
