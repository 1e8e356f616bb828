"""The lock of a data directory: one embedded service, or one move, uses it at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import Misconfigured


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the lock of the data directory. The lock file stays; the lock ends with the process.

    Raises:
        Misconfigured: another process holds the lock.
    """
    with (data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            detail = f"PNC_DATA_DIR: expected {data_dir} to be free, got one in use by another `pnc up`; end it first"
            raise Misconfigured(detail) from None
        yield
