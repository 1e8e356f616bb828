"""A few threads for long work beside the event loop, shared fairly among workspaces.

The sender of a request determines the cost of its work before and after the network: reading text, decompressing,
decoding an image, writing numbers. Above a stated size this work runs on these threads. It never uses the threads that
check keys, and one workspace cannot take all threads.
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


class SideThreads:
    """A few threads for which workspaces take turns.

    Not thread-safe: use it on one event loop.

    Args:
        threads: Number of threads.
        share: Share of one workspace in the threads, from 0 to 1.
    """

    def __init__(self, threads: int, share: float = 1.0) -> None:
        self._free, self._own = threads, max(1, int(threads * share))
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None
        self._busy: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def run(self, workspace: str, work: Callable[[], T], until: float) -> T:
        """Run a function on a thread when it is the workspace's turn.

        Args:
            workspace: Workspace of the work.
            work: The function. It must limit its own running time.
            until: Deadline for the start, on the event loop's clock.

        Returns:
            The function's result.

        Raises:
            TooLate: the deadline has passed before the start.
        """
        if self._limiter is None:  # needs a running event loop
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
        """Give free threads to the workspaces that have waited longest."""
        for workspace in list(self._waiting):
            turns = self._waiting[workspace]
            while turns and turns[0].done():  # abandoned
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
