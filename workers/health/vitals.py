"""Signs of life of a worker's loops and leases, and the reasons why the worker is not well.

A loop notes each of its rounds. A round of a loop that runs a row lasts as long as the row, so the supervision of a row
notes again for the loop that it runs in.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LOOP_SECONDS = 180.0
"""Longest time between two rounds of a loop. A round waits at most 30 s for a connection and 60 s for a statement."""


@dataclass
class _Loop:
    noted: float
    patience: float


@dataclass
class _Row:
    tried: float
    """Time of the last look at the row's process."""
    renewed: float
    """Time at which the lease was last renewed, or was claimed."""


class Vitals:
    """Signs of life of one worker; all methods may be called from any thread.

    Args:
        lease: Seconds after which a lease that was not renewed is lost.
        clock: Monotonic clock in seconds, for tests.
    """

    def __init__(self, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease, self._clock = lease, clock
        self._lock = threading.Lock()
        self._loops: dict[str, _Loop] = {}
        self._rows: dict[str, _Row] = {}

    def note(self, patience: float = LOOP_SECONDS) -> None:
        """Note a round of the loop of this thread.

        Args:
            patience: Seconds until the next note; later the loop counts as hanging.
        """
        with self._lock:
            self._loops[threading.current_thread().name] = _Loop(self._clock(), patience)

    @contextmanager
    def row(self, row_id: str) -> Iterator[Callable[[bool], None]]:
        """Follow the supervision of a leased row within a block.

        Yields:
            A function to call after each look at the row's process, with true if the lease was renewed.
        """
        now = self._clock()
        with self._lock:
            row = self._rows[row_id] = _Row(now, now)

        def seen(renewed: bool) -> None:
            with self._lock:
                row.tried = self._clock()
                row.renewed = row.tried if renewed else row.renewed
                loop = self._loops.get(threading.current_thread().name)
                if loop is not None:
                    loop.noted = row.tried

        try:
            yield seen
        finally:
            with self._lock:
                self._rows.pop(row_id, None)

    def starting(self) -> str | None:
        """Reason why the worker takes no work yet; None: its loops run."""
        with self._lock:
            started = bool(self._loops)
        return None if started else "expected the worker's loops to run, got none yet; the broker may be away"

    def hanging(self) -> str | None:
        """Reason why only a restart helps; None: every loop and every supervision is alive."""
        with self._lock:
            now = self._clock()
            silent = {name: now - loop.noted for name, loop in self._loops.items() if now - loop.noted > loop.patience}
            silent |= {name: now - row.tried for name, row in self._rows.items() if now - row.tried > LOOP_SECONDS}
        if not silent:
            return None
        name, seconds = max(silent.items(), key=lambda item: item[1])
        return f"expected a sign of life of {name} within minutes, got none for {seconds:.0f} s; restart the worker"

    def losing(self) -> str | None:
        """Reason why a lease of this worker has probably been lost; None: all are renewed in time."""
        with self._lock:
            now = self._clock()
            late = {name: now - row.renewed for name, row in self._rows.items() if now - row.renewed > self._lease}
        if not late:
            return None
        name, seconds = max(late.items(), key=lambda item: item[1])
        return f"expected the lease of {name} to be renewed within {self._lease:g} s, got {seconds:.0f} s without"
