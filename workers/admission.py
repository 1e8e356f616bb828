"""Admission of a job: its memory is estimated before its images are loaded, and compared with the worker's memory.

A job that fits waits until enough memory is free. A job that never fits is refused: the next attempt is for a worker
of large jobs, and after that the job fails with the same reason.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import torch

from app.datasets.tables import DatasetRow
from app.db.leases import Lease
from app.errors import MemoryInUse, NotEnoughMemory
from app.jobs import recovery, runs
from app.process.resources import memory
from app.process.resources.memory import Room
from app.zoo import Zoo
from pnc_core.config import CloneConfig
from pnc_core.graph.positions import trace
from pnc_core.method.memory import Memory, estimate
from workers.loading import Network

_ADVICE = "set a smaller batch_size, fewer views or screen_images, or a position; or use a worker with more memory"
_FOLDER = "memory"
GIB = 2**30
WAIT_SECONDS = 30
"""Delay before a job that waits for memory can be claimed again."""


@dataclass(frozen=True)
class _Claim:
    """Memory that a running job will need at most."""

    process: int
    bytes: int
    """All memory of the process at its peak."""

    @property
    def outstanding(self) -> int:
        """The part that the process has not taken yet."""
        try:
            return max(0, self.bytes - int(psutil.Process(self.process).memory_info().rss))
        except psutil.Error:
            return 0


def admit(
    zoo: Zoo, target: Network, source: Network, dataset: DatasetRow, config: CloneConfig, *, anyway: bool = False
) -> IO[str]:
    """Check that a job fits, and reserve its memory until the returned file is closed or this process ends.

    Args:
        zoo: The open zoo.
        target: The job's target on its device, and its spec.
        source: The job's source, likewise.
        dataset: The job's images.
        config: The job's parameters.
        anyway: Admit the job although it is too large by the estimate.

    Raises:
        NotEnoughMemory: the worker never has enough memory.
        MemoryInUse: the worker has not enough memory now.
    """
    traced = trace(*target), trace(*source)
    needed = estimate(*traced, _images(dataset, target, config), config)
    if traced[0].device.type == "cuda":
        free, total = torch.cuda.mem_get_info(traced[0].device)
        _check("the GPU", needed.device, Room(total, free), anyway=anyway)
    return _reserve(zoo, needed, anyway=anyway)


def decline(zoo: Zoo, lease: Lease, error: NotEnoughMemory) -> None:
    """Release a job that was not admitted, with the reason.

    Raises:
        LeaseLost: another worker has the job now.
    """
    with zoo.database.write() as session:
        if isinstance(error, MemoryInUse):
            runs.postpone(session, lease, str(error), WAIT_SECONDS)
        else:
            recovery.refuse(session, lease, str(error))


def _images(dataset: DatasetRow, target: Network, config: CloneConfig) -> int:
    if not config.labels:
        return dataset.rows
    return sum(dataset.counts.get(name, 0) for name in (*target[1].classes, *config.classes))


def _reserve(zoo: Zoo, needed: Memory, *, anyway: bool) -> IO[str]:
    """Reserve memory of the host among the jobs of this worker."""
    folder = zoo.settings.data_dir / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    used, room = int(psutil.Process().memory_info().rss), memory.room()
    most = min(room.limit, zoo.settings.job_memory_bytes or room.limit)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taken = sum(claim.outstanding for claim in _others(folder))
        _check("this worker", needed.host, Room(most - used, min(most - used, room.free - taken)), anyway=anyway)
        own = (folder / f"{os.getpid()}.job").open("w")
        fcntl.flock(own, fcntl.LOCK_EX)
        own.write(str(used + needed.host))
        own.flush()
        return own


def _others(folder: Path) -> list[_Claim]:
    """Claims of running jobs. A file without a lock belongs to a process that has ended."""
    found = []
    for path in folder.glob("*.job"):
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(_Claim(int(path.stem), int(file.read() or 0)))
            else:
                path.unlink()
    return found


def _check(place: str, needed: int, room: Room, *, anyway: bool) -> None:
    """Compare.

    Raises:
        NotEnoughMemory: more is needed than there is.
        MemoryInUse: more is needed than is free now.
    """
    if anyway:
        return
    wanted = f"expected a job that fits into the memory of {place}, got one that needs about {needed / GIB:.1f} GiB"
    if needed > room.limit:
        raise NotEnoughMemory(f"{wanted} of {max(0, room.limit) / GIB:.1f} GiB; {_ADVICE}")
    if needed > room.free:
        raise MemoryInUse(
            f"{wanted}, and {max(0, room.free) / GIB:.1f} GiB of {room.limit / GIB:.1f} GiB are free; it waits"
        )
