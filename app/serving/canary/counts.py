"""Counts of canaries in this process, added to the database every few seconds.

All replicas add to one row, so that its totals survive a restart and are the same from every replica.
"""

import threading
import time
from collections import Counter

from app.db.engine import Database
from app.deployments.canary import service as canaries
from app.deployments.replicas import BEAT_SECONDS

Amounts = Counter[str]
"""By column of `CanaryRow`. `logit_difference` is a sum of differences, all others are numbers of things."""


class Counts:
    """Counts that are not in the database yet."""

    def __init__(self) -> None:
        self._new: dict[str, Amounts] = {}
        self._lock = threading.Lock()
        self._written = time.monotonic()

    def add(self, canary: str, **amounts: float) -> None:
        """Add amounts to the columns of a canary, by its id."""
        self._add({canary: Counter(amounts)})

    def _add(self, amounts: dict[str, Amounts]) -> None:
        with self._lock:
            for canary, more in amounts.items():
                self._new.setdefault(canary, Counter()).update(more)

    def write_due(self, database: Database) -> None:
        """Write the counts if the last write is old."""
        if time.monotonic() - self._written >= BEAT_SECONDS:
            self.write(database)

    def write(self, database: Database) -> None:
        """Add the counts to the database. If that fails they are kept for the next time."""
        with self._lock:
            amounts, self._new = self._new, {}
        try:
            if amounts:
                with database.write() as session:
                    canaries.count(session, amounts)
        except BaseException:
            self._add(amounts)
            raise
        self._written = time.monotonic()
