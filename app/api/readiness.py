"""Whether the process can work, found out by one thread however many ask.

Load balancers ask again and again, above all while the database is away and every look at it waits. So the threads
that do requests have no part in it, one look answers all that ask meanwhile, and one that takes too long is an answer
as well.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

FRESH_SECONDS = 1.0
"""How long an answer is passed on without looking again."""
PATIENCE_SECONDS = 5.0
"""A look that takes longer says that something hangs."""


class Readiness:
    """Looks at most once a second.

    Args:
        look: Says why the process cannot work; None: it can. It may wait, and must not raise.
        fresh: Seconds for which an answer holds.
        patience: Seconds after which there is an answer without it.
    """

    def __init__(
        self, look: Callable[[], str | None], *, fresh: float = FRESH_SECONDS, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.fresh = fresh
        self._look, self._patience = look, patience
        self._lock = threading.Lock()
        self._pending: Future[str | None] | None = None
        self._answer: tuple[float, str | None] | None = None

    async def reason(self) -> str | None:
        """Why the process cannot work now, or could not a moment ago; None: it can."""
        with self._lock:
            if self._answer is not None and time.monotonic() - self._answer[0] < self.fresh:
                return self._answer[1]
            pending = self._pending or self._begin()
        try:
            # Shielded: one that goes away must not take the answer from the others.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(pending)), self._patience)
        except TimeoutError:
            return f"expected database and store to answer within {self._patience:g} s, got no answer"

    def _begin(self) -> Future[str | None]:
        """A thread of its own, which the end of the process need not wait for."""
        self._pending = pending = Future[str | None]()
        threading.Thread(target=self._work, args=(pending,), name="readiness", daemon=True).start()
        return pending

    def _work(self, pending: Future[str | None]) -> None:
        answer = self._look()
        with self._lock:
            self._answer, self._pending = (time.monotonic(), answer), None
        pending.set_result(answer)
