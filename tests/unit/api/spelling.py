"""Ways to write a path, and requests that carry it as it is written."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio
from anyio.from_thread import BlockingPortal
from starlette.types import ASGIApp, Message, Scope

_ENCODED_DOTS = ("%2e", "%2E", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%c0%ae%c0%ae")
_OTHER_SLASHES = ("%2f", "%2F", "\\", "%5c", "%5C", "%252f", "%252F", "%255c", "//")


def spellings(path: str) -> list[str]:
    """Ways to write a path that some client, proxy or server takes for the same one."""
    return sorted(set(_spellings(path)) - {path})


def _spellings(path: str) -> Iterator[str]:
    parts = path[1:].split("/") if path != "/" else []
    for i in range(len(parts) + 1):
        before, after = parts[:i], parts[i:]
        for inserted in (["."], [""], ["x", ".."], ["x", "y", "..", ".."], *([dots] for dots in _ENCODED_DOTS)):
            yield "/" + "/".join([*before, *inserted, *after])
        for dots in _ENCODED_DOTS[2:5]:
            yield "/" + "/".join([*before, "x", dots, *after])
    for i in range(1, len(parts)):
        for slash in _OTHER_SLASHES:
            yield "/" + "/".join(parts[:i]) + slash + "/".join(parts[i:])
    for root in ("v1", "v2", "docs", "_nicegui", "healthz"):
        yield f"/{root}/.." + path
        yield f"/{root}/%2e%2e" + path
        yield f"/{root}/..%2f" + path[1:]
    for i, part in enumerate(parts):
        for spelt in (f"%{ord(part[0]):02x}{part[1:]}", f"{part[:-1]}%{ord(part[-1]):02X}", f"{part}%0a", f"{part}%ff"):
            yield "/" + "/".join([*parts[:i], spelt, *parts[i + 1 :]])
    yield from (path[1:] or "x", path + "/", "\\" + path[1:], "/" + path, path + "%2f", path + "%5c", path + "%2e")


@dataclass
class Answer:
    """What an application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def scope_of(method: str, raw: str, secret: str | None, host: str = "localhost:8000") -> Scope:
    """A request's scope as uvicorn makes it: the path is decoded once."""
    headers = [(b"host", host.encode()), (b"content-type", b"application/json")]
    headers += [(b"authorization", f"Bearer {secret}".encode())] if secret is not None else []
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def ask(app: ASGIApp, scope: Scope) -> Answer:
    answer, given = Answer(), False

    async def receive() -> Message:
        nonlocal given
        if given:
            await anyio.sleep_forever()
        given = True
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


class Raw:
    """Asks an application without a client that would mend the path.

    Args:
        portal: Of the event loop that the application runs on.
        app: The application.
    """

    def __init__(self, portal: BlockingPortal, app: ASGIApp) -> None:
        self._portal = portal
        self._app = app

    def __call__(self, method: str, raw: str, secret: str | None = None, **more: Any) -> Answer:
        """Send a request; `more` goes into its scope."""
        scope = {**scope_of(method, raw, secret), **more}
        return self._portal.call(functools.partial(ask, self._app, scope))
