"""Whether what the service keeps can be written: asked often, tried seldom."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from app.zoo import troubles
from app.zoo.errors import Misconfigured
from app.zoo.zoo import Zoo

SECONDS = 3.0
"""How long an answer counts."""


class Writability:
    """Writes a few bytes to the data directory, beside the database's file and to the store, at most every few seconds.

    Args:
        zoo: The open zoo.
        clock: Seconds that only go forward, for tests.
    """

    def __init__(self, zoo: Zoo, clock: Callable[[], float] = time.monotonic) -> None:
        self._zoo, self._clock = zoo, clock
        self._lock = threading.Lock()
        self._known: tuple[float, str | None] | None = None

    def problem(self) -> str | None:
        """Why something cannot be written; None: all of it can."""
        with self._lock:  # who asks while somebody tries waits for that answer
            if self._known is None or self._clock() >= self._known[0] + SECONDS:
                self._known = self._clock(), self._look()
            return self._known[1]

    def _look(self) -> str | None:
        places: list[tuple[str, Path]] = [("PNC_DATA_DIR", self._zoo.staging)]
        database = self._zoo.database.engine.url.database
        if self._zoo.database.is_sqlite and database:
            places.append(("PNC_DATABASE_URL", Path(database).parent))
        try:
            for setting, directory in places:
                with troubles.of_directory(directory, setting):
                    troubles.try_to_write(directory)
            self._zoo.store.check_writable()
        except (OSError, Misconfigured) as error:
            return str(error)
        return None
