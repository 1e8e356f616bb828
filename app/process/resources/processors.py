"""Number of threads of a process that runs networks, and how these threads wait.

torch counts the machine's processors. A process may use fewer: its affinity or the quota of its control group may
allow fewer, and other processes of the service may run networks too. torch's OpenMP threads spin while they wait for
each other. On a busy machine this takes processor time from the thread that the others wait for.
OpenMP reads its variables once, when torch is loaded. A process must set them before, or inherit them.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from app.process.resources.control_groups import groups_of

THREADS = "OMP_NUM_THREADS"
SHARED = "PNC_SHARED_THREADS"
"""Variable with the number that this service has set in THREADS. Any other number in THREADS is the user's choice."""
WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
"""Waiting threads sleep at once. Every OpenMP reads the first variable, also GNU's, which torch uses on Linux. LLVM's
and Intel's OpenMP spin for a while unless the second variable forbids it."""
WORK_OF_A_THREAD = 100_000_000
"""Multiply-accumulates of a batch for each thread. With fewer, the overhead of another thread exceeds its gain.
Measured by `python -m benchmarks.busy --threads`."""


def begin(parts: int = 1, threads: int | None = None) -> None:
    """Set this process's variables. Call it before torch is loaded.

    Args:
        parts: Number of processes that run networks at the same time, this process or its children.
        threads: Number of threads; None: a share of the processors.
    """
    os.environ.update(variables(parts, threads))


def variables(parts: int = 1, threads: int | None = None) -> dict[str, str]:
    """Variables of a process that runs networks, without those that the user has set.

    Args:
        parts: Number of processes that run networks at the same time.
        threads: Number of threads; None: a share of the processors.
    """
    waiting = {name: value for name, value in WAITING.items() if name not in os.environ}
    if _is_chosen(os.environ):
        return waiting
    share = str(threads or share_of(parts))
    return {**waiting, THREADS: share, SHARED: "" if threads else share}


def threads_for(work: int, threads: int | None = None) -> int:
    """Number of threads that run a network; one for a small network.

    Args:
        work: Multiply-accumulates of one batch.
        threads: The user's choice, which is returned.
    """
    if threads is not None:
        return threads
    given = _number(os.environ.get(THREADS, ""))
    if given is not None and _is_chosen(os.environ):
        return given
    return max(1, min(given or share_of(1), work // WORK_OF_A_THREAD))


def share_of(parts: int) -> int:
    """Whole processors for each of `parts` processes, at least one."""
    return max(1, math.floor(usable() / parts))


def usable(root: Path = Path("/")) -> float:
    """Processors that this process may use, limited by its affinity and by the quotas of its control groups.

    Args:
        root: Root of the file system.
    """
    return min(float(_affine()), *_quotas(root), math.inf)


def chosen() -> str | None:
    """The user's own number of threads in the environment; None: the service chooses."""
    return os.environ[THREADS] if _is_chosen(os.environ) else None


def _is_chosen(environment: Mapping[str, str]) -> bool:
    given = environment.get(THREADS)
    return bool(given) and given != environment.get(SHARED)


def _affine() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Quotas, in processors, of this process's control groups and of the groups above them."""
    for group in groups_of("cpu", root):
        with suppress(OSError, ValueError):
            yield from _quota(group.folder, is_v2=group.is_v2)


def _quota(folder: Path, *, is_v2: bool) -> Iterator[float]:
    """The quota of one group; nothing if the group has no limit.

    Raises:
        OSError: the group has no quota file, like the topmost group.
        ValueError: the file has another format.
    """
    if is_v2:
        quota, period = (folder / "cpu.max").read_text().split()
    else:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    if quota != "max" and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _number(text: str) -> int | None:
    """The first number of an OpenMP variable, which may hold one number for each nesting level."""
    first = text.partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None
