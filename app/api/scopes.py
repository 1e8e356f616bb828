"""Every route says what it needs, or the service does not start."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response

from app.access import audit
from app.access.auth import OPERATOR
from app.access.keys import SCOPES, Caller
from app.api.bodies import LargeBody
from app.errors import Forbidden, Misconfigured, ZooError
from app.process.threads import CHANGES, on
from app.zoo import Zoo

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
PUBLIC = "public"
"""Needs no key: health, and what describes the API."""
DESCRIBING = "/openapi.json"
"""FastAPI's own route."""
_NEEDS = "__pnc_needs__"
FAILED = "internal_error"
"""Outcome in the audit log of a request that ended with an unexpected error."""


def needs(scope: str) -> Callable[[Endpoint], Endpoint]:
    """Say which scope a route's function needs: one of a key's, `PUBLIC` or `OPERATOR`."""
    assert scope in (*SCOPES, PUBLIC, OPERATOR), scope

    def marked(endpoint: Endpoint) -> Endpoint:
        if scope not in (PUBLIC, OPERATOR, "read"):
            endpoint = on(CHANGES)(endpoint)
        setattr(endpoint, _NEEDS, scope)
        return endpoint

    return marked


class ScopedRoute(APIRoute):
    """A route that asks who comes before it reads a body, and notes who changed something."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, behind the door.

        Raises:
            Misconfigured: the route does not say what it needs.
        """
        handler = super().get_route_handler()
        scope = declared(self)
        if scope == PUBLIC:
            return handler

        async def checked(request: Request) -> Response:
            try:
                caller: Caller = await request.app.state.admission(request, scope)
            except Forbidden as error:
                await run_in_threadpool(note, request.app.state.zoo, request, self.name, error.code)
                raise
            request = LargeBody(request, self.body_field)
            if caller.key_id is None or scope == "read":
                return await handler(request)
            return await _noted(request, self.name, handler)

        return checked


def declared(route: APIRoute) -> str:
    """What a route needs.

    Raises:
        Misconfigured: it does not say.
    """
    scope: str | None = getattr(route.endpoint, _NEEDS, None)
    if scope is None:
        raise Misconfigured(f"{route.path}: expected a route that says what it needs, got none; add @needs(...) to it")
    return scope


def scopes(app: FastAPI) -> dict[str, str]:
    """What every operation needs, by its id."""
    routes = (context.original_route for context in iter_route_contexts(app.routes))
    return {route.name: declared(route) for route in routes if isinstance(route, ScopedRoute)}


def check_routes(app: FastAPI, pages: object) -> None:
    """See that nothing but routes that say what they need can be reached.

    Args:
        app: With all its routes.
        pages: The one route that asks by itself; None: there is none.

    Raises:
        Misconfigured: a route was added beside them.
    """
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        path = getattr(route, "path", "")
        if not isinstance(route, ScopedRoute) and route is not pages and path != DESCRIBING:
            raise Misconfigured(f"{path or route!r}: expected a route that asks for keys, got {type(route).__name__}")


async def _noted(
    request: Request, action: str, handler: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    """Let a request that changes something do its work, and note who asked and what became of it."""
    outcome = FAILED
    try:
        response = await handler(request)
        outcome = str(response.status_code)
        return response
    except ZooError as error:
        outcome = error.code
        raise
    except RequestValidationError:
        outcome = "invalid"
        raise
    except HTTPException as error:
        outcome = str(error.status_code)
        raise
    except ClientDisconnect:
        outcome = "aborted"
        raise
    finally:
        await run_in_threadpool(note, request.app.state.zoo, request, action, outcome)


def note(zoo: Zoo, connection: HTTPConnection, action: str, outcome: str) -> None:
    """Write the line, if the request came with a key; call it from a thread.

    Args:
        zoo: Where the log is.
        connection: The request's.
        action: What was asked for.
        outcome: Status, or the problem's code.
    """
    state = connection.scope.get("state", {})
    caller: Caller | None = state.get("caller")
    if caller is None or caller.key_id is None:
        return
    with zoo.database.write() as session:
        audit.note(
            session,
            caller,
            action=action,
            method=connection.scope["method"],
            path=connection.scope["path"],
            address=connection.client.host if connection.client else "",
            outcome=outcome,
            request_id=state.get("request_id", ""),
        )
