"""Thread pools for blocking work, with a fixed number of threads for each kind of work.

In a single pool, forty requests that wait for one lock would block all other requests. FastAPI's own pool handles
short reads only. Each kind of longer work has its own pool, so that only requests of the same kind wait for each other.
All pools together use fewer connections than a process has (`app.db.engine`).
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
        name: Name of the kind of work.
        threads: Number of threads. Further work waits in order of arrival.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._threads = threads
        self._limiter = RunVar[anyio.CapacityLimiter](f"pnc pool {name}")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` on one of the threads and return its result."""
        return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs), limiter=self.limiter)

    @property
    def limiter(self) -> anyio.CapacityLimiter:
        """The pool's limiter for the running event loop. A process of the service has one loop; tests have several."""
        try:
            return self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(self._threads)
            self._limiter.set(limiter)
            return limiter


def on(pool: Pool) -> Callable[[Work], Work]:
    """Decorator that runs a route's plain function on a pool. An `async` function stays unchanged."""

    def decorate(work: Work) -> Work:
        if inspect.iscoroutinefunction(work):
            return work

        @functools.wraps(work)
        async def run_on_pool(*args: Any, **kwargs: Any) -> Any:
            return await pool.run(work, *args, **kwargs)

        return cast(Work, run_on_pool)

    return decorate


READS = Pool("reads", 24)
"""Requests that hold a reading session. FastAPI has more threads than this, so that a request always finds a thread."""
CHANGES = Pool("changes", 10)
"""Requests that write rows. Each may wait for a lock."""
ROLLOUTS = Pool("roll-outs", 10)
"""Requests that wait for serving processes."""
LONG = Pool("long", 4)
"""Requests that take seconds: they hash a file, open a dataset, or remove many objects."""
PAGES = Pool("pages", 4)
"""Reads and charts of web pages."""
STREAMS = Pool("streams", 2)
"""Past events of jobs, for streams that begin or lag behind."""
TEXTS = Pool("texts", 1)
"""Large JSON bodies and Markdown. They only use the processor, so that a second thread would gain nothing."""
