"""Who of a machine's users may read what the service keeps: its own user, or that user's group, and nobody else.

New files get their permissions from the process's umask. Those of earlier versions, and copies that were brought back
without care, are mended when a process starts. Only what the service has made itself is touched.
"""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.settings import Settings

log = logging.getLogger(__name__)
OTHERS, GROUP_AND_OTHERS = 0o007, 0o077
KEY_FILE = "secret.key"
INCOMING = "incoming"
_DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal")


def begin(settings: Settings) -> None:
    """Let this process, and those that it starts, make files that only the right ones can read."""
    os.umask(_barred(settings))


def mend(settings: Settings, *, deep: bool = False) -> None:
    """Take permissions away that go too far, with one warning if there were any.

    Args:
        settings: Where everything lies, and who may read it.
        deep: Every object too; else only where a directory on the way to them was open.
    """
    barred, reconstructed = _barred(settings), 0
    doors = [settings.data_dir, settings.data_dir / "uploads"]
    reconstructed += sum(_close(path, barred) for path in doors if not _is_public(path))
    files = [settings.data_dir / "lock", settings.data_dir / KEY_FILE, *_database_files(settings)]
    reconstructed += sum(_close(path, barred) for path in files)
    store = store_directory(settings)
    if store is not None and not _is_public(store):
        mine = OTHERS if is_shared(store) and not store.is_relative_to(settings.data_dir) else barred
        reconstructed += _close(store, mine)
        if deep or reconstructed:
            reconstructed += sum(_close(path, mine) for path in _objects(store))
    if deep or reconstructed:
        reconstructed += sum(_close(path, barred) for path in _within(settings.data_dir / "uploads"))
    if reconstructed:
        log.warning(
            "other users could use %d files and directories of %s; now they cannot (PNC_FILE_ACCESS=%s)",
            reconstructed,
            settings.data_dir,
            settings.file_access,
        )


def store_directory(settings: Settings) -> Path | None:
    """Where objects lie as files; None: they lie in a bucket."""
    return None if "://" in settings.store_url else Path(settings.store_url)


def is_shared(directory: Path) -> bool:
    """Whether a directory is open to its group, as one is that several users share on purpose."""
    with suppress(OSError):
        return bool(directory.stat().st_mode & stat.S_IWGRP)
    return False


def _barred(settings: Settings) -> int:
    return OTHERS if settings.file_access == "group" else GROUP_AND_OTHERS


def _is_public(path: Path) -> bool:
    """A directory such as /tmp or somebody's home, which is not ours to close."""
    with suppress(OSError):
        return bool(path.stat().st_mode & stat.S_ISVTX) or path.resolve() in (Path.home(), Path("/"))
    return False


def _database_files(settings: Settings) -> Iterator[Path]:
    backend, _, path = settings.database_url.partition(":///")
    if backend.startswith("sqlite") and path:
        yield from (Path(path.partition("?")[0] + suffix) for suffix in _DATABASE_SUFFIXES)


def _objects(store: Path) -> Iterator[Path]:
    """Directories and files of a store; what else lies there is left alone."""
    with suppress(OSError):
        for directory in store.iterdir():
            if directory.name == INCOMING or len(directory.name) == 2:
                yield directory
                yield from _within(directory)


def _within(directory: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from directory.iterdir()


def _close(path: Path, barred: int) -> bool:
    """Take permissions of one's own file or directory away; says whether there were any."""
    with suppress(OSError):
        found = path.lstat()
        is_ours = found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode)
        if is_ours and found.st_mode & barred:
            path.chmod(stat.S_IMODE(found.st_mode) & ~barred)
            return True
    return False
