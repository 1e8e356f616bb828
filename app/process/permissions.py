"""File permissions: only the service's user, or also that user's group, may use the files of the service.

The process's umask sets the permissions of new files. At start a process removes excess permissions of existing files,
such as files of earlier versions or of a restored backup. It changes only files that the service has created.
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
    """Set the umask of this process and of its children."""
    os.umask(_excess_mask(settings))


def mend(settings: Settings, *, deep: bool = False) -> None:
    """Remove excess permissions, and log one warning if any were removed.

    Args:
        settings: Paths of the files, and who may use them.
        deep: Check every object. Otherwise objects are checked only if a directory above them had excess permissions.
    """
    excess, removed = _excess_mask(settings), 0
    directories = [settings.data_dir, settings.data_dir / "uploads"]
    removed += sum(_remove_excess(path, excess) for path in directories if not _is_public(path))
    files = [settings.data_dir / "lock", settings.data_dir / KEY_FILE, *_database_files(settings)]
    removed += sum(_remove_excess(path, excess) for path in files)
    store = store_directory(settings)
    if store is not None and not _is_public(store):
        store_excess = OTHERS if is_shared(store) and not store.is_relative_to(settings.data_dir) else excess
        removed += _remove_excess(store, store_excess)
        if deep or removed:
            removed += sum(_remove_excess(path, store_excess) for path in _objects(store))
    if deep or removed:
        removed += sum(_remove_excess(path, excess) for path in _within(settings.data_dir / "uploads"))
    if removed:
        log.warning(
            "removed excess permissions of %d files and directories of %s (PNC_FILE_ACCESS=%s)",
            removed,
            settings.data_dir,
            settings.file_access,
        )


def store_directory(settings: Settings) -> Path | None:
    """Directory of the object store; None: the store is a bucket."""
    return None if "://" in settings.store_url else Path(settings.store_url)


def is_shared(directory: Path) -> bool:
    """Whether the group may write to a directory, as in a directory that several users share on purpose."""
    with suppress(OSError):
        return bool(directory.stat().st_mode & stat.S_IWGRP)
    return False


def _excess_mask(settings: Settings) -> int:
    return OTHERS if settings.file_access == "group" else GROUP_AND_OTHERS


def _is_public(path: Path) -> bool:
    """Whether a directory is /, the user's home or a shared directory such as /tmp, whose permissions stay."""
    with suppress(OSError):
        return bool(path.stat().st_mode & stat.S_ISVTX) or path.resolve() in (Path.home(), Path("/"))
    return False


def _database_files(settings: Settings) -> Iterator[Path]:
    backend, _, path = settings.database_url.partition(":///")
    if backend.startswith("sqlite") and path:
        yield from (Path(path.partition("?")[0] + suffix) for suffix in _DATABASE_SUFFIXES)


def _objects(store: Path) -> Iterator[Path]:
    """Directories and files that the store has created."""
    with suppress(OSError):
        for directory in store.iterdir():
            if directory.name == INCOMING or len(directory.name) == 2:
                yield directory
                yield from _within(directory)


def _within(directory: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from directory.iterdir()


def _remove_excess(path: Path, excess: int) -> bool:
    """Remove excess permissions of a file or directory of this user; returns whether there were any."""
    with suppress(OSError):
        found = path.lstat()
        is_ours = found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode)
        if is_ours and found.st_mode & excess:
            path.chmod(stat.S_IMODE(found.st_mode) & ~excess)
            return True
    return False
