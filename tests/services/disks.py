"""A small real file system, to test a full disk."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system in memory within a block.

    Args:
        directory: Mount point; created if missing.
        megabytes: Size of the file system.

    Raises:
        RuntimeError: this user may not mount file systems.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kind = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(directory)]
    done = subprocess.run(kind, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"expected to mount a small file system, got: {done.stderr.strip()}; run the tests as root")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def filled(directory: Path, leave: int = 0) -> Iterator[None]:
    """Fill a disk within a block.

    Args:
        directory: A folder on that disk.
        leave: Bytes that stay free.
    """
    filler = directory / "filler"
    free = os.statvfs(directory)
    with filler.open("wb", buffering=0) as file:
        try:
            left = free.f_bavail * free.f_frsize - leave
            while left > 0:
                left -= file.write(bytes(min(left, 64 * 1024)))
            while leave == 0:
                file.write(bytes(4096))
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()
