"""Trouble of the surroundings: a full disk, a directory that has gone, a file system that is read only.

None of it is a fault of the code, so that a log wants one line with the reason and no traceback.
"""

import errno
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from app.errors import Misconfigured, NoSpace, StoreUnavailable, ZooError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room is left: on the disk, in the user's quota, or below the limit of a file."""
_AWAY = frozenset(
    {
        errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENOENT, errno.ENOTCONN, errno.ENOTDIR,
        errno.ENXIO, errno.EPERM, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT,
    }
)  # fmt: skip
_SAID_FULL = ("database or disk is full", "no space left on device", "disk quota exceeded")
"""What SQLite and PostgreSQL say of a full disk."""
_SAID_BROKEN = ("disk i/o error", "readonly database", "unable to open database file", "read-only file system")
PROBE = ".probe-"
"""Beginning of the name of a file that is only there to see whether one can be written."""
_PROBED = 64 * 1024
AGAIN_SECONDS = 60.0
"""The same trouble is told again after so long."""
_FREE = "free some space, or raise the quota"


@contextmanager
def of_directory(root: Path, setting: str) -> Iterator[None]:
    """Around work in a directory: what the system refuses becomes an error of the zoo.

    Args:
        root: The directory.
        setting: That names it.

    Raises:
        NoSpace: there is no room left.
        StoreUnavailable: it cannot be read or written.
    """
    try:
        yield
    except ZooError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(f"{setting}: expected room in {root}, got: {error.strerror}; {_FREE}") from error
        if error.errno in _AWAY and _is_below(error.filename, root):
            detail = f"{setting}: expected a directory that can be used, got {root}: {_strerror(error)}; bring it back"
            raise StoreUnavailable(detail) from error
        raise


def try_to_write(directory: Path) -> None:
    """Write some bytes to a file of a directory and remove it again.

    Raises:
        OSError: that is not possible.
    """
    with tempfile.NamedTemporaryFile(dir=directory, prefix=PROBE) as file:
        file.write(bytes(_PROBED))
        file.flush()


def reason(error: BaseException) -> str | None:
    """What the surroundings did wrong, in one line; None: it is none of that."""
    if isinstance(error, DBAPIError):
        return full_database(error) or _away_database(error)
    if isinstance(error, ZooError):
        return str(error) if isinstance(error, OSError | Misconfigured) else None
    if isinstance(error, OSError) and (error.errno in FULL or error.errno in _AWAY):
        return f"{_strerror(error)}{f': {error.filename}' if error.filename else ''}"
    return None


def full_database(error: BaseException) -> str | None:
    """What a database says whose disk is full; None: it is not."""
    said = _said(error)
    return f"the database has no room left: {said}" if any(words in said.lower() for words in _SAID_FULL) else None


def broken_database(error: BaseException) -> str | None:
    """What SQLite says whose file cannot be read or written; None: it can."""
    said = _said(error)
    return f"the database cannot be used: {said}" if any(words in said.lower() for words in _SAID_BROKEN) else None


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk is full."""
    if isinstance(error, NoSpace) or (isinstance(error, OSError) and error.errno in FULL):
        return True
    return isinstance(error, DBAPIError) and full_database(error) is not None


class Complaints:
    """Log lines about what goes wrong again and again.

    Args:
        log: Where to.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def __call__(self, what: str, error: BaseException) -> None:
        """Tell of an error: with its traceback, unless the surroundings are to blame; those once a minute.

        Args:
            what: Cannot be done.
            error: Why.
        """
        why = reason(error)
        if why is None:
            self._log.error(what, exc_info=error)
        elif self._is_news(what, why):
            self._log.warning("%s: %s", what, why)

    def _is_news(self, what: str, why: str) -> bool:
        now = time.monotonic()
        with self._lock:
            before, at = self._told.get(what, ("", -AGAIN_SECONDS))
            if before == why and now - at < AGAIN_SECONDS:
                return False
            self._told = {key: told for key, told in self._told.items() if now - told[1] < AGAIN_SECONDS}
            self._told[what] = why, now
            return True


def _away_database(error: DBAPIError) -> str | None:
    """A database that is away says nothing of the code either."""
    if broken_database(error) is not None:
        return broken_database(error)
    kind = type(error).__name__
    return f"the database does not answer: {_said(error)}" if kind in ("OperationalError", "InterfaceError") else None


def _is_below(name: object, root: Path) -> bool:
    """Whether an error tells of a file in a directory; one that names none came from writing to a file there."""
    return not isinstance(name, str) or Path(name).is_relative_to(root)


def _said(error: BaseException) -> str:
    """What the driver said, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _strerror(error: OSError) -> str:
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))
