"""How a child process ends, as its supervisor reads it."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UNREACHABLE, OUT_OF_MEMORY, NO_SPACE = 75, 76, 77
"""Exit codes: database, store or broker cannot be reached (try again later); memory ran out; a disk is full (later)."""
PASSING = {
    UNREACHABLE: "database or store could not be reached",
    NO_SPACE: "no room is left where its worker writes (PNC_DATA_DIR, the store or the database); free some space",
}
"""Why a row is given back for a while, by exit code; no attempt is used."""
_OWN, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def killed_for_memory() -> int:
    """How many processes of this control group the kernel has killed because memory ran out; 0 where nobody counts."""
    for path in _counters():
        with suppress(OSError):
            lines = path.read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _counters() -> Iterator[Path]:
    """Where the kernel may count, the nearest first; a container sees its own group at the top, and under no name."""
    with suppress(OSError):
        for line in _OWN.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                yield _MOUNT / group.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                yield _MOUNT / "memory" / group.lstrip("/") / "memory.oom_control"
    yield _MOUNT / "memory.events"
    yield _MOUNT / "memory" / "memory.oom_control"


def was_out_of_memory(code: int, killed: int) -> bool:
    """Whether memory is what a process died of.

    Args:
        code: How it ended.
        killed: What `killed_for_memory` said when it began.
    """
    return code == OUT_OF_MEMORY or (code == -signal.SIGKILL and killed_for_memory() > killed)


def reason(code: int, *, out_of_memory: bool = False) -> str:
    """One line for people, to follow the name of an attempt."""
    if code == -signal.SIGKILL and out_of_memory:
        return "its process was killed because memory ran out"
    if code == OUT_OF_MEMORY:
        return "its process ran out of memory"
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for using too much memory"
    if code == 0:
        return "its process ended without a result"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
