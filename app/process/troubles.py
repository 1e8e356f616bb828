"""Errors of the environment: a full disk, a directory that is gone, a read-only file system, a database without answer.

The code is not at fault. A log needs one line with the reason and no traceback, and the same work may succeed later.
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

from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import Misconfigured, NoSpace, StoreUnavailable, ZooError
from pnc_core.errors import is_out_of_memory

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk or the user's quota is full, or a file has reached its size limit."""
_AWAY = frozenset(
    {
        errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET,
        errno.EHOSTUNREACH, errno.EIO, errno.EMFILE, errno.ENETUNREACH, errno.ENFILE, errno.ENODEV, errno.ENOENT,
        errno.ENOMEM, errno.ENOTCONN, errno.ENOTDIR, errno.ENXIO, errno.EPERM, errno.EPIPE, errno.EROFS, errno.ESTALE,
        errno.ETIMEDOUT,
    }
)  # fmt: skip
_FULL_TEXTS = ("database or disk is full", "no space left on device", "disk quota exceeded")
"""Parts of the messages of SQLite and PostgreSQL on a full disk."""
_BROKEN_TEXTS = ("disk i/o error", "readonly database", "unable to open database file", "read-only file system")
_AWAY_DATABASE = (OperationalError, InterfaceError, InternalError)
PROBE = ".probe-"
"""Prefix of the name of a file that is written only to test whether writing works."""
_PROBE_BYTES = 64 * 1024
AGAIN_SECONDS = 60.0
"""Shortest time between two log lines about the same failure."""
_FREE = "free some space, or raise the quota"


@contextmanager
def of_directory(root: Path, setting: str) -> Iterator[None]:
    """Translate file system errors of work in a directory into errors of the zoo.

    Args:
        root: The directory.
        setting: Name of the setting that holds the directory.

    Raises:
        NoSpace: the disk or the quota is full.
        StoreUnavailable: the directory cannot be read or written.
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
    """Write 64 KiB to a temporary file in a directory and remove the file.

    Raises:
        OSError: the directory cannot be written, or its disk is full.
    """
    with tempfile.NamedTemporaryFile(dir=directory, prefix=PROBE) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()


def reason(error: BaseException) -> str | None:
    """The failure of the environment that caused an error, in one line; None: the error has another cause."""
    if isinstance(error, DBAPIError):
        return full_database(error) or _away_database(error)
    if isinstance(error, PoolTimeout):
        return _no_answer(error)
    if isinstance(error, ZooError):
        return str(error) if isinstance(error, OSError | Misconfigured) else None
    if is_out_of_memory(error):
        return f"no memory is left: {_message(error) or type(error).__name__}"
    if isinstance(error, OSError) and (error.errno in FULL or error.errno in _AWAY):
        return f"{_strerror(error)}{f': {error.filename}' if error.filename else ''}"
    return None


def is_passing(error: BaseException) -> bool:
    """Whether the same work may succeed later without a change: disk, database, store or memory have failed."""
    return reason(error) is not None and not isinstance(error, Misconfigured)


def full_database(error: BaseException) -> str | None:
    """The database's message that its disk is full; None: the error says something else."""
    said = _message(error)
    return f"the database has no room left: {said}" if any(words in said.lower() for words in _FULL_TEXTS) else None


def broken_database(error: BaseException) -> str | None:
    """SQLite's message that its file cannot be read or written; None: the error says something else."""
    said = _message(error)
    return f"the database cannot be used: {said}" if any(words in said.lower() for words in _BROKEN_TEXTS) else None


def is_full(error: BaseException) -> bool:
    """Whether the cause of the error is a full disk, quota or bucket."""
    if isinstance(error, NoSpace) or (isinstance(error, OSError) and error.errno in FULL):
        return True
    return isinstance(error, DBAPIError) and full_database(error) is not None


class Complaints:
    """Log an error that may occur many times a second without flooding the log.

    Args:
        log: The logger.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._logged: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, what: str, error: BaseException) -> None:
        """Log an error of the environment in one line, and any other error with its traceback.

        The same error of the same work is logged once a minute.

        Args:
            what: The failed work, as a clause: "a request cannot be answered".
            error: The error.
        """
        why = reason(error)
        if not self._is_due(what, why or repr(error)):
            return
        if why is None:
            self._log.error(what, exc_info=error)
        else:
            self._log.warning("%s: %s", what, why)

    def _is_due(self, what: str, why: str) -> bool:
        now = time.monotonic()
        with self._lock:
            self._logged = {entry: at for entry, at in self._logged.items() if now - at < AGAIN_SECONDS}
            if (what, why) in self._logged:
                return False
            self._logged[what, why] = now
            return True


def _away_database(error: DBAPIError) -> str | None:
    """The failure of a database that is broken or does not answer; None: the statement is at fault."""
    if broken_database(error) is not None:
        return broken_database(error)
    is_away = isinstance(error, _AWAY_DATABASE) or type(error) is DatabaseError
    return _no_answer(error) if is_away else None


def _no_answer(error: BaseException) -> str:
    return f"the database does not answer: {_message(error)}"


def _is_below(name: object, root: Path) -> bool:
    """Whether an error concerns a file in a directory. An error of writing to an open file names no file."""
    return not isinstance(name, str) or Path(name).is_relative_to(root)


def _message(error: BaseException) -> str:
    """The message of the database driver, or of the error itself, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _strerror(error: OSError) -> str:
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def one_line(error: Exception) -> str:
    """An error's message in one line of at most 500 characters."""
    return " ".join(str(error).split())[:500] or type(error).__name__
