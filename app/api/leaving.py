"""Work for a client ends when the client goes away."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.requests import Request

LOOK_SECONDS = 0.05
"""Work that takes no longer is not watched: there is nothing to save."""
GONE = 499
"""The status of an answer that nobody reads, as nginx calls it."""


class Gone(Exception):
    """The client has closed the connection; nobody waits for the answer."""


class WhileThere:
    """A block that is cancelled when the client of a request goes away; the request's body has been read.

    Args:
        request: Whose client.

    Raises:
        Gone: in place of the cancellation.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._gone = False
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._begin)
        return self

    def _begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        # As asyncio.timeout does: our own cancellation is taken back, one from elsewhere goes on.
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Gone from error
