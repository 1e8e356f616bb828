"""Which of a job's trials count, wherever they are shown."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Row = TypeVar("Row")


def newest(rows: Iterable[Row], field: Callable[[Row, str], Any]) -> list[Row]:
    """The newest trial of each pair of positions in each round, oldest first.

    An attempt that goes on from a checkpoint reports again only what it tries again: the
    trials of a job are those of all its attempts together.

    Args:
        rows: Of one job, oldest first.
        field: Reads a field of a row, e.g. `getattr`; an `attempt` of None is the first.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: field(row, "attempt") or 1):
        where = tuple(field(row, name) for name in ("target_position", "source_position", "round"))
        found.pop(where, None)
        found[where] = row
    return list(found.values())
