"""How much may wait at once, for all and for each workspace."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Overloaded(Exception):
    """Too much waits already."""


class TooLate(Exception):
    """The deadline passed before the whole answer was there."""


class Room:
    """Counts what waits: requests, images or bytes.

    It belongs to one event loop.

    Args:
        most: For all together.
        share: Of that, for one workspace, from 0 to 1.
    """

    def __init__(self, most: int, share: float = 1.0) -> None:
        self._most, self._own = most, max(1, int(most * share))
        self._used = 0
        self._by: Counter[str] = Counter()

    @contextmanager
    def taken(self, workspace: str, amount: int) -> Iterator[None]:
        """Hold room for the length of a block; a workspace that holds none gets any amount while some is left.

        Raises:
            Overloaded: there is not so much left for all, or for this workspace.
        """
        mine = self._by[workspace]
        fits = self._used + amount <= self._most and mine + amount <= self._own
        if not fits and (mine or self._used >= self._most):
            raise Overloaded
        self._used += amount
        self._by[workspace] += amount
        try:
            yield
        finally:
            self._used -= amount
            self._by[workspace] -= amount
            if not self._by[workspace]:
                del self._by[workspace]
