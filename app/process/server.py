"""Run an ASGI app the way all processes of the service do."""

import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from app.errors import Misconfigured
from app.process import signals
from app.process.lifeline import end_with_parent
from app.process.logs import log_to_stderr
from app.settings import Settings

SOCKET: dict[str, Any] = {"ws_max_size": 2 * 1024**2, "ws_per_message_deflate": False}
"""Largest message of a page's websocket, and no packing: to pack and unpack large ones would hold the event loop."""
OPEN_FILES = 65_536
"""Files and connections that a process asks the system for; many systems allow 1,024 unless somebody asks."""


class _Server(uvicorn.Server):
    """Follows the same signals as all processes of the service, and ends with 0 when it was asked to."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Called by uvicorn around all that it does."""
        signals.on_signals(self._ask, partial(os._exit, signals.INTERRUPTED))
        yield

    def _ask(self) -> None:
        self.should_exit = True


def run_inherited(process: str, factory: str, fd: int) -> None:
    """Serve on a listening socket that the parent process made; end with the parent.

    Args:
        process: Named in every line of the log.
        factory: `module:function` that makes the app.
        fd: File descriptor of the socket.
    """
    end_with_parent()
    log_to_stderr(Settings(), process)
    _allow_files()
    config = uvicorn.Config(
        factory,
        factory=True,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        lifespan="on",
        **SOCKET,
    )
    try:
        _Server(config).run(sockets=[socket.socket(fileno=fd)])
    except Misconfigured as error:
        sys.exit(f"error: {error}")


def run_alone(process: str, app: ASGIApp, settings: Settings, host: str, port: int) -> None:
    """Serve an app on an address of its own until a signal asks it to end.

    Args:
        process: Named in every line of the log.
        app: The app.
        settings: Of the log.
        host: Address to listen on.
        port: Port.
    """
    log_to_stderr(settings, process)
    _allow_files()
    config = uvicorn.Config(
        app, host, port, log_level="info", access_log=False, timeout_graceful_shutdown=30, lifespan="on", **SOCKET
    )
    _Server(config).run()


def _allow_files() -> None:
    """Take as many open files as the system lets a process have without asking its administrator."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
