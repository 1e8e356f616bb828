"""How many processor threads a process may use, and how these wait for each other.

torch counts the machine's processors. A process may use fewer: its affinity may be narrower, its control group may
have a quota, and others of the same service may run networks beside it. torch's OpenMP threads also spin while they
wait for each other, so that on a busy machine they burn the time that the thread they wait for would need.
OpenMP reads its variables once, when torch is loaded: a process sets them before, or gets them from its parent.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

THREADS = "OMP_NUM_THREADS"
_SHARED = "PNC_SHARED_THREADS"
"""What we set THREADS to; another number there is the user's choice."""
WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
"""Threads that wait sleep at once. The first is for every OpenMP, GNU's among them, which torch brings on Linux;
the second for LLVM's and Intel's, which wait actively for a while unless they are told otherwise."""
WORK_OF_A_THREAD = 100_000_000
"""Multiply-accumulates of a batch that are worth a thread of their own; with fewer, handing them over takes longer than
it saves. See `python -m benchmarks.busy --threads`."""


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy of control groups."""

    root: str
    """The group that is seen at `point`."""
    point: str
    is_v2: bool


def begin(parts: int = 1, threads: int | None = None) -> None:
    """Set this process's variables; to be called before torch is loaded.

    Args:
        parts: How many run networks side by side, this process or its children.
        threads: Instead of a share of the processors.
    """
    os.environ.update(variables(parts, threads))


def variables(parts: int = 1, threads: int | None = None) -> dict[str, str]:
    """Variables of a process that runs networks. What the user has set stays.

    Args:
        parts: How many run networks side by side.
        threads: Instead of a share of the processors.
    """
    waiting = {name: value for name, value in WAITING.items() if name not in os.environ}
    if _is_chosen(os.environ):
        return waiting
    share = str(threads or share_of(parts))
    return {**waiting, THREADS: share, _SHARED: "" if threads else share}


def threads_for(work: int, threads: int | None = None) -> int:
    """How many threads a network is run with: one where it is small.

    Args:
        work: Multiply-accumulates of one batch.
        threads: The user's choice, which stays.
    """
    if threads is not None:
        return threads
    given = _number(os.environ.get(THREADS, ""))
    if given is not None and _is_chosen(os.environ):
        return given
    return max(1, min(given or share_of(1), work // WORK_OF_A_THREAD))


def share_of(parts: int) -> int:
    """Whole processors for each of some parts, at least one."""
    return max(1, math.floor(usable() / parts))


def usable(root: Path = Path("/")) -> float:
    """Processors that this process may use: those of its affinity, as far as the quotas of its control groups reach.

    Args:
        root: Of the file system.
    """
    return min(float(_affine()), *_quotas(root), math.inf)


def _is_chosen(environment: Mapping[str, str]) -> bool:
    given = environment.get(THREADS)
    return bool(given) and given != environment.get(_SHARED)


def _affine() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Of this process's control groups and all above them, in processors."""
    groups = _groups(root)
    for mount in _mounts(root):
        group = groups.get(mount.is_v2)
        if group is None:
            continue
        top = root / mount.point.lstrip("/")
        inside = PurePosixPath(group)
        inside = inside.relative_to(mount.root) if inside.is_relative_to(mount.root) else PurePosixPath()
        for part in (inside, *inside.parents):
            with suppress(OSError, ValueError):
                yield from _quota(top / part, is_v2=mount.is_v2)


def _groups(root: Path) -> dict[bool, str]:
    """This process's group in the hierarchy that limits processors: of version 2 (True), of version 1 (False)."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            groups[not controllers] = path
    return groups


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            seen, point = before.split(" ")[3:5]
            yield _Mount(seen, point, kind == "cgroup2")


def _quota(folder: Path, *, is_v2: bool) -> Iterator[float]:
    """Of one group: none where it has no limit.

    Raises:
        OSError: it has no such file, as the topmost group.
        ValueError: the file says something else.
    """
    if is_v2:
        quota, period = (folder / "cpu.max").read_text().split()
    else:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    if quota != "max" and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _lines(path: Path) -> list[str]:
    """None where there is no such file: other systems than Linux have no control groups."""
    with suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []


def _number(text: str) -> int | None:
    """The first of OpenMP's numbers, which may be one for each level."""
    first = text.partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None
