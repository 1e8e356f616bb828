"""ASGI middleware for every answer: security headers, and HEAD answered as GET."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "Content-Security-Policy"
HEADERS = {
    POLICY: "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer that sets no others. Web pages and API documents set their own Content-Security-Policy,
which forbids frames of other sites too."""
_API_PATHS = ("/v1/", "/v2", "/healthz", "/readyz", "/metrics", "/docs", "/redoc")
"""Beginnings of the API's paths."""
_EXCLUDED = ("/bundle", "/stream")
"""Ends of paths to which HEAD is not passed as GET: bundles have a HEAD route of their own, streams never end."""


class SecurityHeaders:
    """Add `HEADERS` to every answer of an application, errors and files included.

    Args:
        app: The next ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the headers that the answer lacks."""

        async def add_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, add_headers)


class HeadRequests:
    """Answer HEAD like GET, without the body (RFC 9110, section 9.3.2), on all paths of the API.

    Args:
        app: The next ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass HEAD on as GET and remove the body of the answer."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and answers_head(scope["path"]):
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._app(scope, receive, send)


def answers_head(path: str) -> bool:
    """Whether `HeadRequests` answers HEAD on this path, provided that the path has a GET route."""
    return path.startswith(_API_PATHS) and not path.endswith(_EXCLUDED)


def _without_body(send: Send) -> Send:
    async def send_without_body(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_without_body
