"""Whether what the service keeps can be written: asked often, tried seldom."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.process import troubles
from app.store.objects import Store

SECONDS = 3.0
"""How long an answer counts."""


class Writability:
    """Writes a few bytes to directories and to the store, at most every few seconds.

    Args:
        places: Directories, and the settings that name them.
        store: The object store.
        clock: Seconds that only go forward, for tests.
    """

    def __init__(
        self, places: Sequence[tuple[str, Path]], store: Store, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._places, self._store, self._clock = places, store, clock
        self._lock = threading.Lock()
        self._known: tuple[float, str | None] | None = None

    def problem(self) -> str | None:
        """Why something cannot be written; None: all of it can."""
        with self._lock:  # who asks while somebody tries waits for that answer
            if self._known is None or self._clock() >= self._known[0] + SECONDS:
                self._known = self._clock(), self._look()
            return self._known[1]

    def _look(self) -> str | None:
        try:
            for setting, directory in self._places:
                with troubles.of_directory(directory, setting):
                    troubles.try_to_write(directory)
            self._store.check_writable()
        except OSError as error:
            return str(error)
        return None
