"""Cancel the work for a request when its client closes the connection."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.requests import Request

WATCH_AFTER_SECONDS = 0.05
"""Shorter work is not watched: cancelling it would save nothing."""
GONE = 499
"""Status for a client that has closed the connection; 499 is nginx's convention."""


class Gone(Exception):
    """The client has closed the connection and does not wait for the answer."""


class WhileThere:
    """Async context manager whose block is cancelled when the client of a request closes the connection.

    Args:
        request: The request. Its body must have been read.

    Raises:
        Gone: the client has closed the connection.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._gone = False
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, self._begin)
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
        # As in asyncio.timeout: our own cancellation becomes `Gone`, any other cancellation stays.
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Gone from error
