"""Exit codes of child processes, and the reasons that a supervisor derives from them."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UNREACHABLE, OUT_OF_MEMORY, NO_SPACE = 75, 76, 77
"""Exit codes: database, store or broker unreachable (retry later); out of memory; disk full (retry later)."""
TEMPORARY = {
    UNREACHABLE: "database or store is unreachable",
    NO_SPACE: "no room is left where its worker writes (PNC_DATA_DIR, the store or the database); free some space",
}
"""Reason for releasing a row until later, by exit code; no attempt is used."""
_OWN, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def killed_for_memory() -> int:
    """Number of processes of this control group that the kernel killed for lack of memory; 0 if there is no counter."""
    for path in _counters():
        with suppress(OSError):
            lines = path.read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _counters() -> Iterator[Path]:
    """Files that may hold the kernel's counter, the nearest control group first.

    In a container the own group is the root of the mounted tree.
    """
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
    """Whether a process ended for lack of memory.

    Args:
        code: Its exit code.
        killed: Result of `killed_for_memory` when the process started.
    """
    return code == OUT_OF_MEMORY or (code == -signal.SIGKILL and killed_for_memory() > killed)


def reason(code: int, *, out_of_memory: bool = False) -> str:
    """The reason of a crash in one line, as a continuation of the attempt's name."""
    if code == -signal.SIGKILL and out_of_memory:
        return "its process was killed because memory ran out"
    if code == OUT_OF_MEMORY:
        return "its process ran out of memory"
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for using too much memory"
    if code == 0:
        return "its process ended without a result"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
