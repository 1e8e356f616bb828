"""Wait for an object that a worker brings to an end."""

import time
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from pnc_client.http import Http


class Run(Protocol):
    """An object that a worker brings to an end."""

    @property
    def id(self) -> str:
        """Typed id."""

    @property
    def state(self) -> str:
        """Name of its state."""

    @property
    def progress(self) -> float:
        """Finished share, 0 to 1."""

    @property
    def message(self) -> str:
        """Description in one line, for people."""


R = TypeVar("R", bound=Run)
Progress = Callable[[float, str], object]
"""Called with the finished share, 0 to 1, and a message for people."""
POLL_SECONDS = 0.5


def wait_for_end(
    http: Http, get: Callable[[], R], ended: Collection[str], progress: Progress | None, timeout: float
) -> R:
    """Ask for an object until its state is one of `ended`.

    Args:
        http: The client's connection.
        get: Asks for the object.
        ended: States in which it has ended.
        progress: Called after each answer; None: nothing is called.
        timeout: Seconds to wait.

    Raises:
        TimeoutError: it has not ended within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = get()
        if progress is not None:
            progress(found.progress, found.message)
        if found.state in ended:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{found.id}: expected its end within {timeout:g} s, got the state {found.state}; is a worker running?"
            )
        http.sleep(POLL_SECONDS)
