"""What the three services have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from tests.services.processes import Process, free_port

HOST = "127.0.0.1"
Kind = TypeVar("Kind", bound="Service")


class Service(ABC):
    """A real service on a port of loopback, with all it keeps below one directory.

    The port is kept there too: who opens the same directory again finds the same service.

    Args:
        directory: Parent of its directory, on a path that other users can reach.
        lasting: It outlives this process, until `stop`; otherwise it dies with it.
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
        """The process that clients talk to."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it can be used now."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Variables that point the service's processes at it."""

    def start(self) -> Self:
        """Start it, unless it runs, and wait until it answers.

        Raises:
            Unavailable: it cannot be installed or does not come up.
        """
        self.front.start()
        self.front.wait_until(self.answers)
        return self

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self.front.kill()

    def restart(self) -> None:
        """Start it again after its death, on the same port, and wait until it answers."""
        self.front.kill()
        self.start()

    def pause(self) -> None:
        """Freeze it with SIGSTOP: it accepts connections and does not answer."""
        self.front.pause()

    def resume(self) -> None:
        """Wake it up after `pause`."""
        self.front.resume()

    def stop(self) -> None:
        """End it."""
        self.front.stop()

    def _kept_port(self, name: str) -> int:
        path = self.directory / name
        if not path.exists():
            path.write_text(str(free_port()))
        return int(path.read_text())


@contextmanager
def running(kind: type[Kind], directory: Path) -> Iterator[Kind]:
    """A service for the length of a block."""
    service = kind(directory)
    try:
        yield service.start()
    finally:
        service.stop()
