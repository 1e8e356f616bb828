"""Whether the process lives, and whether it can work."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.api.documented import documented
from app.api.problems import respond
from app.api.readiness import Readiness
from app.api.scopes import PUBLIC, ScopedRoute, needs
from app.db import engine
from app.process import troubles
from app.store.objects import key_of
from app.zoo import Zoo

router = APIRouter(tags=["health"], route_class=ScopedRoute)


class Health(BaseModel):
    """A state in one word."""

    status: Literal["ok", "ready"]


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
