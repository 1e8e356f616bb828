"""A real Redis without persistence: killing it loses its data."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.services.processes import Process
from tests.services.programs import find
from tests.services.service import HOST, Service, running


class Redis(Service):
    """A Redis server; `url` is its address for Celery and redis-py."""

    name = "redis"

    @property
    def url(self) -> str:
        """URL of the first database."""
        return f"redis://{HOST}:{self.port}/0"

    def environment(self) -> dict[str, str]:
        """See `Service.environment`."""
        return {"PNC_BROKER_URL": self.url}

    def answers(self) -> bool:
        """See `Service.answers`."""
        with suppress(OSError), socket.create_connection((HOST, self.port), 2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def _front(self) -> Process:
        program = find("redis-server", ["redis-server"])
        kept = ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        return Process([program, "--bind", HOST, "--port", str(self.port), *kept], self.directory, lasting=self.lasting)


@contextmanager
def redis(directory: Path) -> Iterator[Redis]:
    """Run a Redis within a block."""
    with running(Redis, directory) as service:
        yield service
