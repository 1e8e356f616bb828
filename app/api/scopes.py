"""Scopes of routes, and the audit log of requests. The service does not start if a route declares no scope."""

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
"""Scope of routes without a key: health and the OpenAPI document."""
DOCUMENT = "/openapi.json"
"""FastAPI's own route, which has no scope."""
_NEEDS = "__pnc_needs__"
FAILED = "internal_error"
"""Outcome in the audit log of a request that ended with an unexpected error."""


def needs(scope: str) -> Callable[[Endpoint], Endpoint]:
    """Declare the scope of a route's function: a scope of keys, `PUBLIC` or `OPERATOR`."""
    assert scope in (*SCOPES, PUBLIC, OPERATOR), scope

    def marked(endpoint: Endpoint) -> Endpoint:
        if scope not in (PUBLIC, OPERATOR, "read"):
            endpoint = on(CHANGES)(endpoint)
        setattr(endpoint, _NEEDS, scope)
        return endpoint

    return marked


class ScopedRoute(APIRoute):
    """A route that authenticates before it reads the body, and writes changes to the audit log."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler with authentication and audit log.

        Raises:
            Misconfigured: the route declares no scope.
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
            return await _audited(request, self.name, handler)

        return checked


def declared(route: APIRoute) -> str:
    """The scope of a route.

    Raises:
        Misconfigured: the route declares none.
    """
    scope: str | None = getattr(route.endpoint, _NEEDS, None)
    if scope is None:
        raise Misconfigured(f"{route.path}: expected a route with a scope, got none; add @needs(...) to it")
    return scope


def scopes(app: FastAPI) -> dict[str, str]:
    """Scope of every operation, by operation id."""
    routes = (context.original_route for context in iter_route_contexts(app.routes))
    return {route.name: declared(route) for route in routes if isinstance(route, ScopedRoute)}


def check_routes(app: FastAPI, pages: object) -> None:
    """Check that every route of an application authenticates its requests.

    Args:
        app: The application with all its routes.
        pages: The route of the web pages, which authenticates on its own; None: the application has no pages.

    Raises:
        Misconfigured: a route does not authenticate.
    """
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        path = getattr(route, "path", "")
        if not isinstance(route, ScopedRoute) and route is not pages and path != DOCUMENT:
            raise Misconfigured(f"{path or route!r}: expected a route that checks keys, got {type(route).__name__}")


async def _audited(
    request: Request, action: str, handler: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    """Handle a request that changes something, and write its outcome to the audit log."""
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
    """Write an entry of the audit log if the request came with a key. Blocks: call it from a thread.

    Args:
        zoo: Holds the audit log.
        connection: The request.
        action: Name of the operation.
        outcome: HTTP status, or the code of the problem.
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
