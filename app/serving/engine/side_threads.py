"""Work that takes long, beside the event loop: a few threads whose turns the workspaces share.

What a request costs before and after the network depends on its sender: text to be read, bytes to be inflated, an
image to be decoded, numbers to be written. None of it is done on the event loop beyond a stated size, none of it
takes the threads that keys are checked in, and one workspace cannot have all of these threads.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

from app.serving.engine.capacity import TooLate

T = TypeVar("T")


class Aside:
    """A few threads; who comes while all are busy waits, and workspaces take turns.

    It belongs to one event loop.

    Args:
        threads: How many.
        share: Of them, for one workspace, from 0 to 1.
    """

    def __init__(self, threads: int, share: float = 1.0) -> None:
        self._free, self._own = threads, max(1, int(threads * share))
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None
        self._busy: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def run(self, workspace: str, work: Callable[[], T], until: float) -> T:
        """Do some work in a thread, when it is this workspace's turn.

        Args:
            workspace: Whose work it is.
            work: Ends by itself within a time that it knows.
            until: When it is too late to begin, on the event loop's clock.

        Raises:
            TooLate: it is.
        """
        if self._limiter is None:  # made where an event loop runs
            self._limiter = anyio.CapacityLimiter(self._threads)
        async with self._turn(workspace, until):
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    @asynccontextmanager
    async def _turn(self, workspace: str, until: float) -> AsyncIterator[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(workspace, deque()).append(turn)
        self._give_turns()
        try:
            try:
                async with asyncio.timeout_at(until):
                    await turn
            except TimeoutError:
                raise TooLate from None
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._busy[workspace] -= 1
                if not self._busy[workspace]:
                    del self._busy[workspace]
            self._give_turns()

    def _give_turns(self) -> None:
        """To the workspaces that have waited longest for one, as long as there are threads."""
        for workspace in list(self._waiting):
            turns = self._waiting[workspace]
            while turns and turns[0].done():  # given up
                turns.popleft()
            if turns and self._free and self._busy[workspace] < self._own:
                self._free -= 1
                self._busy[workspace] += 1
                turns.popleft().set_result(None)
                self._waiting.move_to_end(workspace)
            if not turns:
                del self._waiting[workspace]
        if self._free and any(self._busy[space] < self._own for space in self._waiting):
            self._give_turns()
