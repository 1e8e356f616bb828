"""The pages as one route of the service's application, which catches no path of the API."""

import os
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from app.web.desk import KEY, Desk

TITLE = "Model zoo"
_FIRST = frozenset({"", "models", "datasets", "jobs", "modules", "deployments", "compare", "new", "favicon.ico"})
_OWN = ("_nicegui", "_nicegui_ws")
_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class Pages(BaseRoute):
    """All pages.

    Args:
        desk: What they work with.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._site = site()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a path begins as one of the pages' does; all others are the API's."""
        if scope["type"] not in ("http", "websocket"):
            return Match.NONE, {}
        first = scope["path"].lstrip("/").partition("/")[0]
        return (Match.FULL, {KEY: self._desk}) if first in _FIRST or first in _OWN else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the page answer, with headers that keep it out of other sites' frames."""

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._site(scope, receive, hardened)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Pages are linked to by path."""
        raise NotImplementedError(name)

    def running(self) -> AbstractAsyncContextManager[Any]:
        """What the pages need while the application runs."""
        return self._site.router.lifespan_context(self._site)


@cache
def site() -> FastAPI:
    """The pages' own application; a process has one, since NiceGUI keeps one."""
    os.environ.setdefault("MATPLOTLIB", "false")  # NiceGUI would load it for an element that no page has
    from nicegui import ui

    from app.web import (  # noqa: F401 - each adds its page
        comparison,
        datasets,
        deployment,
        deployments,
        job,
        jobs,
        model,
        models,
        module,
        modules,
        new_job,
    )
    from app.web.frame import LOGO

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
