"""How a child process ends, as its supervisor reads it."""

import signal
from pathlib import Path

UNREACHABLE, OUT_OF_MEMORY = 75, 76
"""Exit codes: database, store or broker cannot be reached (try again later); memory ran out."""
_EVENTS = Path("/sys/fs/cgroup/memory.events")


def killed_for_memory() -> int:
    """How many processes of this container the kernel has killed because memory ran out; 0 where nobody counts."""
    try:
        lines = _EVENTS.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def reason(code: int) -> str:
    """One line for people, to follow the name of an attempt."""
    if code == OUT_OF_MEMORY:
        return "its process ran out of memory"
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for using too much memory"
    if code == 0:
        return "its process ended without a result"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
