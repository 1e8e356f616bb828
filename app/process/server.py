"""Run an ASGI application, with the same options in all processes of the service."""

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
"""Largest websocket message of a page, and no compression: compressing large messages would block the event loop."""
OPEN_FILES = 65_536
"""Limit of open files and connections that a process requests. Many systems allow 1,024 by default."""


class _Server(uvicorn.Server):
    """A server that handles signals like all processes of the service, and exits with 0 after a signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install the signal handlers. uvicorn calls this around its whole run."""
        signals.on_signals(self._request_exit, partial(os._exit, signals.INTERRUPTED))
        yield

    def _request_exit(self) -> None:
        self.should_exit = True


def run_inherited(process: str, factory: str, fd: int) -> None:
    """Serve on a listening socket of the parent process, and end with the parent.

    Args:
        process: Name of the process in every line of the log.
        factory: `module:function` that creates the application.
        fd: File descriptor of the socket.
    """
    end_with_parent()
    log_to_stderr(Settings(), process)
    _raise_file_limit()
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
    """Serve an application on an address until a signal ends it.

    Args:
        process: Name of the process in every line of the log.
        app: The application.
        settings: Level and format of the log.
        host: Address to listen on.
        port: Port.
    """
    log_to_stderr(settings, process)
    _raise_file_limit()
    config = uvicorn.Config(
        app, host, port, log_level="info", access_log=False, timeout_graceful_shutdown=30, lifespan="on", **SOCKET
    )
    _Server(config).run()


def _raise_file_limit() -> None:
    """Raise the limit of open files as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
