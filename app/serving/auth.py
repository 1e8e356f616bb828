"""Authentication of requests to the serving process: by the API's internal key, or by a user's key.

Only the API may use paths that concern all workspaces, and only for itself. A request that the API forwards for a
user carries the user's workspace, and is limited to predictions and the inference protocol.
"""

import secrets
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.auth import Admission, presented
from app.access.keys import SCOPES, Caller
from app.api import protocol
from app.api.problems import refuse
from app.api.scopes import FAILED, note
from app.db.isolation import qualified
from app.db.tables import DEFAULT
from app.deployments.gateway import INTERNAL, WORKSPACE
from app.errors import Forbidden, Misconfigured, Unauthenticated, ZooError
from app.settings import Settings
from app.zoo import Zoo

PUBLIC = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
PREDICT = "/v1/deployments/{deployment}/predict"
BATCH = f"{PREDICT}/batch"
OWN = "/internal/"
"""Prefix of paths that only the API may use. No path of the protocol or of predictions has this prefix."""
_METRICS = "/metrics"
"""Covers all workspaces. Open to everyone in a service without keys."""


def check_routes(app: FastAPI) -> None:
    """Check that `Auth` knows every route.

    Raises:
        Misconfigured: an unknown route, which would be open to every key with the scope `read`.
    """
    known = {(call.method, call.path) for call in protocol.CALLS} | {("GET", path) for path in (*PUBLIC, _METRICS)}
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        path = str(getattr(context, "path", None) or route.path)
        methods = getattr(route, "methods", None) or {"*"}
        mine = {(method, path) for method in methods if method != "HEAD"}
        if not path.startswith(OWN) and not mine <= known | {("POST", PREDICT), ("POST", BATCH)}:
            raise Misconfigured(f"{path}: expected a route that app.serving.auth knows, got another; add it there")


class Auth:
    """ASGI middleware that authenticates requests. `app.api.guard` must have checked their paths before.

    Args:
        app: The next ASGI application.
        settings: Whether keys are required, and the internal key.
        zoo: Holds the keys.
    """

    def __init__(self, app: ASGIApp, settings: Settings, zoo: Zoo) -> None:
        self._app = app
        self._settings = settings
        self._zoo = zoo
        self._admission = Admission(settings, zoo)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request and store its caller in the scope, or refuse the request."""
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        call = protocol.call_of(scope["method"], scope["path"])
        try:
            caller = await self._caller(scope, "read" if call is None else call.scope)
        except ZooError as error:
            if isinstance(error, Forbidden) and call is not None:
                await self._note(scope, call, error.code)
            await refuse(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        if call is None or call.scope == "read" or caller.key_id is None:  # the API audits requests that it forwards
            await self._app(scope, receive, send)
        else:
            await self._audited(call, scope, receive, send)

    async def _caller(self, scope: Scope, needed: str) -> Caller:
        headers, keyed = Headers(scope=scope), self._settings.require_keys
        own, given, path = self._settings.internal_key, headers.get(INTERNAL), scope["path"]
        is_own = path.startswith(OWN) or path == _METRICS
        if is_own and WORKSPACE in headers:
            raise Forbidden("expected a request without a workspace, got one with a workspace; leave the header out")
        if given is None and keyed and path == _METRICS:  # a monitor sends the internal key as a bearer token
            given = presented(HTTPConnection(scope))
        if own is not None and given is not None:
            if not secrets.compare_digest(own.encode(), given.encode("latin-1")):
                raise Unauthenticated(
                    f"expected the service's own secret in {INTERNAL}, got another; see PNC_INTERNAL_KEY"
                )
            return Caller(headers.get(WORKSPACE, DEFAULT), frozenset(SCOPES))
        if own is not None and (path.startswith(OWN) or (keyed and is_own)):
            raise Unauthenticated(f"expected the service's own secret in {INTERNAL}, got none; see PNC_INTERNAL_KEY")
        return await self._admission(HTTPConnection(scope), needed)

    async def _audited(self, call: protocol.Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request that changes something, and write its outcome to the audit log."""
        outcome = FAILED

        async def send_and_note(message: Message) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                outcome = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            await self._note(scope, call, outcome)

    async def _note(self, scope: Scope, call: protocol.Call, outcome: str) -> None:
        await run_in_threadpool(note, self._zoo, HTTPConnection(scope), call.name, outcome)


def caller_of(request: HTTPConnection) -> Caller:
    """The caller that `Auth` has admitted."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def qualified_name(request: HTTPConnection, name: str) -> str:
    """Name of a deployment with its workspace, unique among all workspaces."""
    return qualified(caller_of(request).workspace, name)
