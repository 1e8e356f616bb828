"""All pages as one route of the service's application; the paths of the API do not match this route."""

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
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import page as signing_in
from app.access.keys import Caller
from app.errors import TooMany, Unauthenticated, ZooError
from app.web import nowhere
from app.web.page_context import KEY, PageContext
from app.web.theme import LOGO, POLICY

Admit = Callable[[HTTPConnection, str], Awaitable[Caller]]
TITLE = "Model zoo"
_PAGE_PATHS = frozenset(
    {
        *("", "add", "audit", "compare", "datasets", "deployments", "favicon.ico", "help", "jobs", "keys", "models"),
        *("modules", "new", "settings", "sign-in", "sign-out", "webhooks"),
    }
)
_NICEGUI_PATHS = ("_nicegui", "_nicegui_ws")
_PAGES = (
    *("app.datasets.list_page", "app.datasets.page", "app.deployments.list_page", "app.deployments.page"),
    *("app.jobs.list_page", "app.jobs.asking.page", "app.jobs.page", "app.models.list_page", "app.models.page"),
    *("app.models.adding.page", "app.web.help", "app.webhooks.list_page", "app.webhooks.page"),
    *("app.access.keys_page", "app.access.audit_page", "app.access.settings_page"),
    *("app.modules.list_page", "app.modules.page", "app.web.comparison"),
)
"""Modules with pages."""


class Pages(BaseRoute):
    """The route of all pages.

    Args:
        context: Context of the pages, without a visitor.
        admit: Returns the caller of a request, or raises `Unauthenticated` or another `ZooError`.
    """

    def __init__(self, context: PageContext, admit: Admit) -> None:
        self._context = context
        self._admit = admit
        self._site = site()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the paths of pages by their first segment; all other paths belong to the API."""
        if scope["type"] not in ("http", "websocket"):
            return Match.NONE, {}
        first = scope["path"].removeprefix("/").partition("/")[0]
        return (Match.FULL, {}) if first in _PAGE_PATHS or first in _NICEGUI_PATHS else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the page respond, with a Content-Security-Policy that allows the page's own scripts."""

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Content-Security-Policy", POLICY)
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
        """Not supported: links to pages use paths."""
        raise NotImplementedError(name)

    def running(self) -> AbstractAsyncContextManager[Any]:
        """Lifespan of the pages' application; enter it while the service runs."""
        return self._site.router.lifespan_context(self._site)


def _turn_away(error: ZooError) -> ASGIApp:
    """The response to a refused request: a redirect to the sign-in page, an error, or the end of a websocket."""

    async def away(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif isinstance(error, Unauthenticated):
            await RedirectResponse(signing_in.PATH, 303)(scope, receive, send)
        else:
            await PlainTextResponse(str(error), 429 if isinstance(error, TooMany) else 403)(scope, receive, send)

    return away


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Drop the log records of `ZooError`: the visitor sees these errors, and NiceGUI would log them too."""
    return not isinstance(record.msg, ZooError)


async def _nowhere(request: Request, error: Exception) -> Response:
    """The answer for a path below a page's, such as `/models/a/b`, in place of NiceGUI's."""
    return nowhere.page(request)


@cache
def site() -> FastAPI:
    """The application of the pages; a process has one, because NiceGUI has one global application."""
    os.environ.setdefault("MATPLOTLIB", "false")  # keeps NiceGUI from importing matplotlib, which no page uses
    from nicegui import app, ui

    for module in _PAGES:  # importing a module registers its pages
        import_module(module)

    app.add_exception_handler(404, _nowhere)
    logging.getLogger("nicegui").addFilter(_is_unexpected)
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
