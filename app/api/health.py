"""Whether the process lives, and whether it can work."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.api.documented import documented
from app.api.problems import respond
from app.api.scopes import PUBLIC, ScopedRoute, needs
from app.db import engine
from app.process import troubles
from app.store.objects import key_of
from app.zoo import Zoo

router = APIRouter(tags=["health"], route_class=ScopedRoute)
FRESH_SECONDS = 1.0
"""How long an answer is passed on without looking again."""
PATIENCE_SECONDS = 5.0
"""A look that takes longer says that something hangs."""


class Health(BaseModel):
    """A state in one word."""

    status: Literal["ok", "ready"]


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


@router.get("/healthz", response_model=Health)
@needs(PUBLIC)
async def healthz() -> Any:
    """The process lives."""
    return Health(status="ok")


@router.get("/readyz", response_model=Health, responses=documented(503))
@needs(PUBLIC)
async def readyz(request: Request) -> Any:
    """Database, data directory and object store can be read and written."""
    readiness: Readiness = request.app.state.readiness
    reason = await readiness.reason()
    return Health(status="ready") if reason is None else _unready(request, reason)


def open_readiness(zoo: Zoo) -> Readiness:
    """What `/readyz` of a process asks."""
    return Readiness(lambda: _not_ready(zoo))


def _not_ready(zoo: Zoo) -> str | None:
    """Why the zoo cannot be used; it runs on a thread of its own and may wait."""
    try:
        zoo.store.size(key_of("0" * 64))
        return engine.outdated(zoo.database) or zoo.writability.problem()
    except Exception as error:  # whatever it is, the answer is the same: not ready, and why
        return f"expected database and store to answer, got {troubles.reason(error) or type(error).__name__}"


def _unready(request: Request, reason: str) -> Response:
    return respond(request.scope, 503, "not_ready", reason, headers={"Retry-After": "5"})
