"""Who may ask the serving process: the API, which has let somebody in, or whoever has a key of their own."""

import secrets

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.admission import Admission, presented, protocol_scope
from app.api.gateway import INTERNAL, WORKSPACE
from app.api.problems import refuse
from app.zoo.errors import Unauthenticated, ZooError
from app.zoo.isolation import qualified
from app.zoo.keys import SCOPES, Caller
from app.zoo.settings import Settings
from app.zoo.tables import DEFAULT
from app.zoo.zoo import Zoo

PUBLIC = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
_OURS, _NUMBERS = "/internal/", "/metrics"
"""What concerns all workspaces; numbers are open where there are no keys."""


class Door:
    """ASGI middleware around the whole serving app.

    Args:
        app: What comes after.
        settings: Whether there are keys, and how the API proves itself.
        zoo: Where keys are.
    """

    def __init__(self, app: ASGIApp, settings: Settings, zoo: Zoo) -> None:
        self._app = app
        self._settings = settings
        self._admission = Admission(settings, zoo)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in with its caller, or refuse it."""
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope)
        except ZooError as error:
            await refuse(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        headers, keyed = Headers(scope=scope), self._settings.require_keys
        own, given = self._settings.internal_key, headers.get(INTERNAL)
        if given is None and keyed and scope["path"] == _NUMBERS:  # as a monitor asks the API
            given = presented(HTTPConnection(scope))
        if own is not None and given is not None:
            if not secrets.compare_digest(own.encode(), given.encode("latin-1")):
                raise Unauthenticated(
                    f"expected the service's own secret in {INTERNAL}, got another; see PNC_INTERNAL_KEY"
                )
            return Caller(headers.get(WORKSPACE, DEFAULT), frozenset(SCOPES))
        if own is not None and scope["path"].startswith((_OURS, _NUMBERS) if keyed else _OURS):
            raise Unauthenticated(f"expected the service's own secret in {INTERNAL}, got none; see PNC_INTERNAL_KEY")
        return await self._admission(HTTPConnection(scope), protocol_scope(scope["path"]))


def caller_of(request: HTTPConnection) -> Caller:
    """Whom the door has let in."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def place(request: HTTPConnection, name: str) -> str:
    """A deployment's name among those of all workspaces."""
    return qualified(caller_of(request).workspace, name)
