"""Run an ASGI app the way all processes of the service do."""

import socket

import uvicorn

from app.zoo.lifeline import end_with_parent


def run_inherited(factory: str, fd: int) -> None:
    """Serve on a listening socket that the parent process made; end with the parent.

    Args:
        factory: `module:function` that makes the app.
        fd: File descriptor of the socket.
    """
    end_with_parent()
    config = uvicorn.Config(
        factory, factory=True, log_level="warning", access_log=False, timeout_graceful_shutdown=5, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])
