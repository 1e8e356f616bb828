"""Threads for work that must not stop the event loop, a fixed number for each kind of work.

In one pool for everything, forty requests that wait for one lock would keep every other request waiting. FastAPI's own
pool is left to short reads. What may take long has a pool of its own: only requests of one kind wait for each other.
All pools together hold fewer connections than the database gives a process (`app.zoo.db`).
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Threads for one kind of work.

    Args:
        name: Of the kind.
        threads: How many work at once; more work waits, in the order in which it came.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._threads = threads
        self._limiter = RunVar[anyio.CapacityLimiter](f"pnc pool {name}")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` on one of the threads; returns what it returns."""
        return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs), limiter=self.limiter)

    @property
    def limiter(self) -> anyio.CapacityLimiter:
        """The pool's limiter of the running event loop; a process of the service has one loop, tests have several."""
        try:
            return self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(self._threads)
            self._limiter.set(limiter)
            return limiter


CHANGES = Pool("changes", 12)
"""Requests that write rows: each may wait for a lock."""
LONG = Pool("long", 4)
"""Requests that take seconds by nature: they hash a file, open a dataset, or wait for serving processes."""
PAGES = Pool("pages", 4)
"""Reads and drawings of web pages, which refresh themselves."""
STREAMS = Pool("streams", 2)
"""Histories of jobs for streams that begin or fell behind."""
TEXTS = Pool("texts", 1)
"""Large JSON bodies and Markdown: they need the processor alone, so that a second thread would gain nothing."""
