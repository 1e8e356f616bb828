"""The pages as one route of the service's application, which catches no path of the API."""

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib import import_module
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import page as signing_in
from app.access.keys import Caller
from app.errors import TooMany, Unauthenticated, ZooError
from app.web.page_context import KEY, PageContext

Admit = Callable[[HTTPConnection, str], Awaitable[Caller]]
TITLE = "Model zoo"
_FIRST = frozenset(
    {"", "models", "datasets", "jobs", "modules", "deployments", "compare", "new", "sign-in", "sign-out", "favicon.ico"}
)
_OWN = ("_nicegui", "_nicegui_ws")
# Vue compiles templates in the browser, which takes inline scripts and eval; but nothing comes from elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "object-src 'none'; form-action 'self'"
)
_PAGES = (
    *("app.datasets.list_page", "app.datasets.page", "app.deployments.list_page", "app.deployments.page"),
    *("app.jobs.list_page", "app.jobs.new_page", "app.jobs.page", "app.models.list_page", "app.models.page"),
    *("app.modules.list_page", "app.modules.page", "app.web.comparison"),
)
"""Modules that hold pages."""


class Pages(BaseRoute):
    """All pages.

    Args:
        context: What they work with.
        admit: Tells who asks, or raises `Unauthenticated` or another refusal.
    """

    def __init__(self, context: PageContext, admit: Admit) -> None:
        self._context = context
        self._admit = admit
        self._site = site()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a path begins as one of the pages' does; all others are the API's."""
        if scope["type"] not in ("http", "websocket"):
            return Match.NONE, {}
        first = scope["path"].removeprefix("/").partition("/")[0]
        return (Match.FULL, {}) if first in _FIRST or first in _OWN else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the page answer, with a policy that lets it run its own scripts."""

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Content-Security-Policy", _POLICY)
            await send(message)

        if scope["type"] == "http" and scope["path"] in (signing_in.PATH, signing_in.LEAVE):
            await (await signing_in.answer(Request(scope, receive), self._context.zoo))(scope, receive, hardened)
            return
        try:
            connection = HTTPConnection(scope)
            caller = await self._admit(connection, "read")
        except ZooError as error:
            await _turn_away(error)(scope, receive, hardened)
            return
        address = connection.client.host if connection.client else ""
        await self._site({**scope, KEY: self._context.seen_by(caller, address)}, receive, hardened)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Pages are linked to by path."""
        raise NotImplementedError(name)

    def running(self) -> AbstractAsyncContextManager[Any]:
        """What the pages need while the application runs."""
        return self._site.router.lifespan_context(self._site)


def _turn_away(error: ZooError) -> ASGIApp:
    """A visitor without a key is sent to where one signs in; a socket is closed."""

    async def away(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif isinstance(error, Unauthenticated):
            await RedirectResponse(signing_in.PATH, 303)(scope, receive, send)
        else:
            await PlainTextResponse(str(error), 429 if isinstance(error, TooMany) else 403)(scope, receive, send)

    return away


def _is_news(record: logging.LogRecord) -> bool:
    """NiceGUI logs whatever a handler raises; what was raised on purpose the visitor is told, and that is enough."""
    return not isinstance(record.msg, ZooError)


@cache
def site() -> FastAPI:
    """The pages' own application; a process has one, since NiceGUI keeps one."""
    os.environ.setdefault("MATPLOTLIB", "false")  # NiceGUI would load it for an element that no page has
    from nicegui import ui

    from app.web.theme import LOGO

    for module in _PAGES:  # importing it adds its pages
        import_module(module)

    logging.getLogger("nicegui").addFilter(_is_news)
    shell = FastAPI(openapi_url=None)
    ui.run_with(
        shell,
        title=TITLE,
        favicon=str(LOGO),
        dark=None,
        tailwind=False,
        show_welcome_message=False,
        binding_refresh_interval=None,
        reconnect_timeout=10.0,
    )
    return shell
