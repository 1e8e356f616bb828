"""The base class of Redis, PostgreSQL and S3."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from tests.services.processes import Process, free_port

HOST = "127.0.0.1"
Kind = TypeVar("Kind", bound="Service")


class Service(ABC):
    """A real service on a loopback port, with all its files below one directory.

    The directory also stores the port: an object for the same directory controls the same service.

    Args:
        directory: Parent of the service's directory, on a path that other users can reach.
        lasting: True: the service runs until `stop`. False: it is killed with this process.
    """

    name: ClassVar[str]

    def __init__(self, directory: Path, *, lasting: bool = False) -> None:
        self.directory = directory.resolve() / self.name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.lasting = lasting
        self.port = self._kept_port("port")
        self.front = self._front()

    @abstractmethod
    def _front(self) -> Process:
        """The process that clients connect to."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the service is ready."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Environment variables with the service's address and keys."""

    def start(self) -> Self:
        """Start the service, unless it is running, and wait until it is ready.

        Raises:
            Unavailable: the service cannot be installed or does not start.
        """
        self.front.start()
        self.front.wait_until(self.answers)
        return self

    def kill(self) -> None:
        """Send SIGKILL and wait until the process is dead."""
        self.front.kill()

    def restart(self) -> None:
        """Kill the service, start it on the same port, and wait until it is ready."""
        self.front.kill()
        self.start()

    def pause(self) -> None:
        """Freeze the service with SIGSTOP: it accepts connections and sends no responses."""
        self.front.pause()

    def resume(self) -> None:
        """Continue after `pause`."""
        self.front.resume()

    def stop(self) -> None:
        """Stop the service."""
        self.front.stop()

    def _kept_port(self, name: str) -> int:
        path = self.directory / name
        if not path.exists():
            path.write_text(str(free_port()))
        return int(path.read_text())


@contextmanager
def running(kind: type[Kind], directory: Path) -> Iterator[Kind]:
    """Run a service within a block."""
    service = kind(directory)
    try:
        yield service.start()
    finally:
        service.stop()
