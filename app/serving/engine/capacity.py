"""Limits on waiting requests, images and bytes, in all and for each workspace."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Overloaded(Exception):
    """A limit is reached."""


class TooLate(Exception):
    """The deadline has passed before the answer was complete."""


class Capacity:
    """Counts waiting requests, images or bytes against a limit.

    Not thread-safe: use it on one event loop.

    Args:
        most: Limit for all workspaces together.
        share: Share of one workspace in the limit, from 0 to 1.
    """

    def __init__(self, most: int, share: float = 1.0) -> None:
        self._most, self._own = most, max(1, int(most * share))
        self._used = 0
        self._by: Counter[str] = Counter()

    @contextmanager
    def taken(self, workspace: str, amount: int) -> Iterator[None]:
        """Take an amount for the duration of a block.

        A workspace that holds nothing gets any amount while the limit is not reached, so that a large request is
        possible at all.

        Raises:
            Overloaded: the amount exceeds the limit for all, or for this workspace.
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
