"""HEAD wherever there is GET: the same answer, without its body (RFC 9110)."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OF_THE_API = ("/v1/", "/v2", "/healthz", "/readyz", "/metrics", "/docs", "/redoc")
_APART = ("/bundle", "/stream")
"""Ends of paths: one that answers HEAD by itself, since its body is large, and one whose body never ends."""


class Heads:
    """ASGI middleware that lets the routes of the API answer HEAD as they answer GET.

    Args:
        app: What comes after.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a HEAD on as a GET, and its answer back without the body."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and is_answered(scope["path"]):
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._app(scope, receive, send)


def is_answered(path: str) -> bool:
    """Whether HEAD of this path is answered here, if GET is at all."""
    return path.startswith(_OF_THE_API) and not path.endswith(_APART)


def _without_body(send: Send) -> Send:
    async def bodiless(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return bodiless
