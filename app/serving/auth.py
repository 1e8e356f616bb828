"""Who may ask the serving process: the API, which has let somebody in, or whoever has a key of their own.

What concerns all workspaces is the API's alone, and only where it asks for itself: a request that it passes on for
somebody carries their workspace, and no path opens such a request anything but predictions and the inference protocol.
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
OWN = "/internal/"
"""What the API alone may ask for lies here: no call of the protocol begins so, and no prediction."""
_NUMBERS = "/metrics"
"""Of all workspaces; open where there are no keys."""


def check_routes(app: FastAPI) -> None:
    """See that the door knows every route.

    Raises:
        Misconfigured: a route was added that it would open to every key with the scope `read`.
    """
    known = {(call.method, call.path) for call in protocol.CALLS} | {("GET", path) for path in (*PUBLIC, _NUMBERS)}
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        path = str(getattr(context, "path", None) or route.path)
        methods = getattr(route, "methods", None) or {"*"}
        mine = {(method, path) for method in methods if method != "HEAD"}
        if not path.startswith(OWN) and not mine <= known | {("POST", PREDICT)}:
            raise Misconfigured(f"{path}: expected a route that app.serving.auth knows, got another; say what it needs")


class Auth:
    """ASGI middleware around the whole serving app, whose requests have their path in its one spelling.

    Args:
        app: What comes after.
        settings: Whether there are keys, and how the API proves itself.
        zoo: Where keys are.
    """

    def __init__(self, app: ASGIApp, settings: Settings, zoo: Zoo) -> None:
        self._app = app
        self._settings = settings
        self._zoo = zoo
        self._admission = Admission(settings, zoo)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in with its caller, or refuse it."""
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
        if call is None or call.scope == "read" or caller.key_id is None:  # what the API passes on, it notes
            await self._app(scope, receive, send)
        else:
            await self._noted(call, scope, receive, send)

    async def _caller(self, scope: Scope, needed: str) -> Caller:
        headers, keyed = Headers(scope=scope), self._settings.require_keys
        own, given, path = self._settings.internal_key, headers.get(INTERNAL), scope["path"]
        is_own = path.startswith(OWN) or path == _NUMBERS
        if is_own and WORKSPACE in headers:
            raise Forbidden("expected a request of the service for itself, got one for a workspace; ask without it")
        if given is None and keyed and path == _NUMBERS:  # as a monitor asks the API
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

    async def _noted(self, call: protocol.Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request that changes something do its work, and note who asked and what became of it."""
        outcome = FAILED

        async def watching(message: Message) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                outcome = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            await self._note(scope, call, outcome)

    async def _note(self, scope: Scope, call: protocol.Call, outcome: str) -> None:
        await run_in_threadpool(note, self._zoo, HTTPConnection(scope), call.name, outcome)


def caller_of(request: HTTPConnection) -> Caller:
    """Whom the door has let in."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def place(request: HTTPConnection, name: str) -> str:
    """A deployment's name among those of all workspaces."""
    return qualified(caller_of(request).workspace, name)
