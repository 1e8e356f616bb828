"""Threads for work that must not stop the event loop, a fixed number for each kind of work.

In one pool for everything, forty requests that wait for one lock would keep every other request waiting. FastAPI's own
pool is left to short reads. What may take long has a pool of its own: only requests of one kind wait for each other.
All pools together hold fewer connections than the database gives a process (`app.db.engine`).
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

P = ParamSpec("P")
T = TypeVar("T")
Work = TypeVar("Work", bound=Callable[..., Any])


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


def on(pool: Pool) -> Callable[[Work], Work]:
    """Let a route's plain function run on a pool's threads; an `async` one, and one that has a pool, stays as it is."""

    def moved(work: Work) -> Work:
        if inspect.iscoroutinefunction(work):
            return work

        @functools.wraps(work)
        async def working(*args: Any, **kwargs: Any) -> Any:
            return await pool.run(work, *args, **kwargs)

        return cast(Work, working)

    return moved


READS = Pool("reads", 24)
"""Requests that hold a session: fewer than FastAPI has threads, or they could all wait for one another's."""
CHANGES = Pool("changes", 10)
"""Requests that write rows: each may wait for a lock."""
ROLLOUTS = Pool("roll-outs", 10)
"""Requests that wait for serving processes."""
LONG = Pool("long", 4)
"""Requests that take seconds by nature: they hash a file, open a dataset, or remove many objects."""
PAGES = Pool("pages", 4)
"""Reads and drawings of web pages, which refresh themselves."""
STREAMS = Pool("streams", 2)
"""Histories of jobs for streams that begin or fell behind."""
TEXTS = Pool("texts", 1)
"""Large JSON bodies and Markdown: they need the processor alone, so that a second thread would gain nothing."""
