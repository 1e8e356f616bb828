"""The first checks of every request: request id, spelling of the path, Host, Origin and size of the body.

The embedded service has no keys and listens on loopback. Pages of other sites in the user's
browser must not use it. Host must name this machine, which prevents DNS rebinding. The Origin of
a write must equal Host, which prevents cross-site request forgery.

Monitors ask a process by its address. A Host that is an address proves that no name was rebound, so the paths for
monitors accept any address.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.api import paths
from app.api.problems import respond
from app.db.ids import new_id
from app.db.text import NUL
from app.settings import Settings

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MONITORED = ("/healthz", "/readyz", "/metrics")
"""Paths that may be requested with any IP address as Host."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_SOCKET = "/_nicegui_ws/"
"""Path of the web pages' websocket and of its polling. Reads of this path are checked like writes."""
_PAGE_UPLOADS = "/_nicegui/client/"
"""Path on which the web pages receive files."""
_UPLOADS = re.compile(r"/v1/uploads/[^/]+/content\Z")
_PREDICTIONS = re.compile(r"/v1/deployments/[^/]+/predict(/batch)?\Z|/v2/models/[^/]+(/versions/[^/]+)?/infer\Z")
"""Paths that receive images and tensors."""


class Guard:
    """ASGI middleware around the whole API.

    Args:
        app: The next ASGI application.
        settings: Allowed hosts and sizes of bodies.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = frozenset((*_LOOPBACK, settings.host, *settings.allowed_hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on with a request id and a limit on its body."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        limit = self._body_limit(scope["path"])
        refusal = (
            _misspelt(scope) or _unstorable(scope) or self._refusal(scope["method"], scope["path"], headers, limit)
        )
        if refusal is not None:
            await respond(scope, *refusal)(scope, receive, send)
            return
        await self._app(scope, _limited(receive, limit), _with_request_id(send, request_id))

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a websocket like a write, because its opener can send data."""
        refusal = _misspelt(scope) or self._refusal("POST", scope["path"], Headers(scope=scope), None)
        if refusal is not None:
            await _refuse_socket(scope, receive, send, respond(scope, *refusal))
            return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: Headers, limit: int | None) -> tuple[int, str, str] | None:
        """Status, code and detail of a refusal; None: the request is allowed."""
        host = headers.get("host", "")
        if not self._is_allowed(_host_name(f"//{host}"), path):
            detail = f"expected Host {_LOOPBACK[0]} or one of PNC_ALLOWED_HOSTS, got {host!r:.80}"
            return 403, "host_not_allowed", detail
        origin = headers.get("origin")
        is_read = method in _SAFE and not path.startswith(_SOCKET)
        if not is_read and origin is not None and _authority(origin) != host:
            detail = f"expected an Origin with host {host}, got {origin!r:.80}; write from there, or without a browser"
            return 403, "origin_not_allowed", detail
        length = headers.get("content-length", "0")
        if limit is not None and length.isdigit() and int(length[:20]) > limit:
            return 413, "too_large", _too_large(limit)
        return None

    def _is_allowed(self, host: str, path: str) -> bool:
        return host in self._hosts or "*" in self._hosts or (path in _MONITORED and _is_address(host))

    def _body_limit(self, path: str) -> int | None:
        """Most bytes of a body; None: no limit here, because the upload itself checks its announced size."""
        if _UPLOADS.match(path):
            return None
        if path.startswith(_PAGE_UPLOADS):
            return self._settings.max_upload_bytes
        return self._settings.max_image_bytes if _PREDICTIONS.match(path) else self._settings.max_body_bytes


async def _refuse_socket(scope: Scope, receive: Receive, send: Send, answer: Response) -> None:
    """Refuse a websocket before it is open, with an HTTP answer if the server supports that."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(answer)
    else:
        await send({"type": "websocket.close", "code": 1008})


def _misspelt(scope: Scope) -> tuple[int, str, str] | None:
    """Status, code and detail of a refusal; None: the path is spelled correctly."""
    detail = paths.fault(scope)
    return None if detail is None else (400, paths.CODE, detail)


def _unstorable(scope: Scope) -> tuple[int, str, str] | None:
    """Status, code and detail of a refusal; None: path and query hold no NUL, which PostgreSQL cannot store."""
    if NUL in scope["path"] or b"%00" in scope.get("query_string", b""):
        return 422, "invalid", "expected a path and a query without NUL (%00), got one; leave it out"
    return None


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _authority(url: str) -> str | None:
    try:
        return urlsplit(url).netloc or None
    except ValueError:
        return None


def _too_large(limit: int) -> str:
    return f"expected a body of at most {limit} bytes, got more; send less"


def _limited(receive: Receive, limit: int | None) -> Receive:
    """`receive` that raises an error when the body exceeds the limit."""
    if limit is None:
        return receive
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return receive_limited


def _with_request_id(send: Send, request_id: str) -> Send:
    """`send` that adds the request id to the answer."""

    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Request-ID"] = request_id
        await send(message)

    return send_with_id
