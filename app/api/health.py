"""`/healthz` and `/readyz`: whether the process is alive, and whether database and store answer.

Load balancers ask `/readyz` again and again, also while the database is away and every check has to wait. One thread
checks for all requests, so that the checks use none of the threads that handle requests.
"""

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
"""Age up to which an answer is repeated without a new check."""
PATIENCE_SECONDS = 5.0
"""A check that takes longer counts as failed."""


class Health(BaseModel):
    """State of the process."""

    status: Literal["ok", "ready"]


class Readiness:
    """Checks at most once a second whether the process can work.

    Args:
        check: Returns the reason why the process cannot work; None: it can. It may block and must not raise.
        fresh: Seconds for which an answer is repeated.
        patience: Seconds after which a check counts as failed.
    """

    def __init__(
        self, check: Callable[[], str | None], *, fresh: float = FRESH_SECONDS, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.fresh = fresh
        self._check, self._patience = check, patience
        self._lock = threading.Lock()
        self._pending: Future[str | None] | None = None
        self._answer: tuple[float, str | None] | None = None

    async def reason(self) -> str | None:
        """Reason why the process cannot work, at most `fresh` seconds old; None: it can."""
        with self._lock:
            if self._answer is not None and time.monotonic() - self._answer[0] < self.fresh:
                return self._answer[1]
            pending = self._pending or self._begin()
        try:
            # Shielded: a cancelled request must not cancel the check for the others.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(pending)), self._patience)
        except TimeoutError:
            return f"expected database and store to answer within {self._patience:g} s, got no answer"

    def _begin(self) -> Future[str | None]:
        """Start a check on a daemon thread, so that the end of the process does not wait for it."""
        self._pending = pending = Future[str | None]()
        threading.Thread(target=self._work, args=(pending,), name="readiness", daemon=True).start()
        return pending

    def _work(self, pending: Future[str | None]) -> None:
        answer = self._check()
        with self._lock:
            self._answer, self._pending = (time.monotonic(), answer), None
        pending.set_result(answer)


@router.get("/healthz", response_model=Health)
@needs(PUBLIC)
async def healthz() -> Any:
    """The process is alive."""
    return Health(status="ok")


@router.get("/readyz", response_model=Health, responses=documented(503))
@needs(PUBLIC)
async def readyz(request: Request) -> Any:
    """Database, data directory and object store can be read and written."""
    readiness: Readiness = request.app.state.readiness
    reason = await readiness.reason()
    return Health(status="ready") if reason is None else _unready(request, reason)


def open_readiness(zoo: Zoo) -> Readiness:
    """The check behind `/readyz`."""
    return Readiness(lambda: _not_ready(zoo))


def _not_ready(zoo: Zoo) -> str | None:
    """Reason why database or store cannot be used; None: they can. May block."""
    try:
        zoo.store.size(key_of("0" * 64))
        return engine.outdated(zoo.database) or zoo.writability.problem()
    except Exception as error:  # any error has the same answer: not ready, with the reason
        return f"expected database and store to answer, got {troubles.reason(error) or type(error).__name__}"


def _unready(request: Request, reason: str) -> Response:
    return respond(request.scope, 503, "not_ready", reason, headers={"Retry-After": "5"})
