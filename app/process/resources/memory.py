"""Memory of this machine that this process may use: its limit, and the part that is free now.

The machine and every control group above the process limit it (`docker run --memory`, a pod's limit).
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.process.resources.control_groups import groups_of

_FILES = {True: ("memory.max", "memory.current"), False: ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Files of a group that hold its limit and its use, by whether the hierarchy has version 2."""


@dataclass(frozen=True)
class Room:
    """Memory in bytes."""

    limit: int
    """All of it, used or not."""
    free: int
    """The part that no process uses. Caches of files count as free."""


def room(root: Path = Path("/")) -> Room:
    """Memory of the machine or of the narrowest control group.

    Args:
        root: Root of the file system with the control groups.
    """
    machine = psutil.virtual_memory()
    found = [Room(machine.total, machine.available), *_limited(root)]
    return Room(min(one.limit for one in found), min(one.free for one in found))


def _limited(root: Path) -> Iterator[Room]:
    for group in groups_of("memory", root):
        with suppress(OSError, ValueError):  # the topmost group has no limit, and a limit may be the word "max"
            limit, used = (int((group.folder / name).read_text()) for name in _FILES[group.is_v2])
            yield Room(limit, limit - used + _cached(group.folder))


def _cached(folder: Path) -> int:
    """Bytes of files that the kernel can give up."""
    rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))
