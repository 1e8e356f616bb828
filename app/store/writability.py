"""Check whether directories and object store can be written."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.process import troubles
from app.store.objects import Store

SECONDS = 3.0
"""Age up to which an answer is repeated without a new check."""


class Writability:
    """Write test bytes to directories and to the store, at most every `SECONDS`.

    Args:
        places: Directories, each with the name of its setting.
        store: The object store.
        clock: Monotonic clock in seconds, for tests.
    """

    def __init__(
        self, places: Sequence[tuple[str, Path]], store: Store, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._places, self._store, self._clock = places, store, clock
        self._lock = threading.Lock()
        self._known: tuple[float, str | None] | None = None

    def problem(self) -> str | None:
        """Message about a place that cannot be written; None: all can be written."""
        with self._lock:  # concurrent callers wait for one check
            if self._known is None or self._clock() >= self._known[0] + SECONDS:
                self._known = self._clock(), self._check()
            return self._known[1]

    def _check(self) -> str | None:
        try:
            for setting, directory in self._places:
                with troubles.of_directory(directory, setting):
                    troubles.try_to_write(directory)
            self._store.check_writable()
        except OSError as error:
            return str(error)
        return None
