"""Objects as files of one directory: the store of the embedded service."""

import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.errors import StoreUnavailable
from app.process import troubles
from app.process.permissions import INCOMING, OTHERS, is_shared
from app.store.objects import Stored, checked_key, copy_hashed, key_of, lost, mismatch

SETTING = "PNC_STORE_URL"


class DirectoryStore:
    """Objects as files of one directory.

    Args:
        root: The directory; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / INCOMING
        root.mkdir(parents=True, exist_ok=True)
        self._is_shared = is_shared(root)
        self._make(self._incoming)

    def put(self, source: Path | Iterable[bytes], *, expected: str | None = None) -> Stored:
        """See `Store.put`; the object appears whole or not at all."""
        with self._used():
            handle, name = tempfile.mkstemp(dir=self._incoming)
            try:
                with os.fdopen(handle, "wb") as file:
                    digest, size = copy_hashed(source, file)
                    os.fsync(file.fileno())
                if expected is not None and digest != expected:
                    raise mismatch(expected, digest)
                self._publish(Path(name), self.path(key_of(digest)))
            finally:
                Path(name).unlink(missing_ok=True)
            return Stored(key_of(digest), digest, size)

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        path = self.path(key)
        with self._used():
            try:
                return path.open("rb")
            except FileNotFoundError:
                self._check_there()
                raise lost(key) from None

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """See `Store.local`."""
        self.open(key).close()
        yield self.path(key)

    def link(self, key: str, filename: str) -> str | None:
        """See `Store.link`: there is none."""
        return None

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        found = self._stat(key)
        return None if found is None else found.st_size

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        path = self.path(key)
        with self._used():
            path.unlink(missing_ok=True)

    def age(self, key: str) -> float | None:
        """See `Store.age`."""
        found = self._stat(key)
        return None if found is None else time.time() - found.st_mtime

    def older_than(self, seconds: float) -> Iterator[str]:
        """See `Store.older_than`."""
        for path in _older(self.root.glob("??/*"), seconds):
            yield f"{path.parent.name}/{path.name}"

    def unfinished(self, seconds: float) -> Iterator[str]:
        """See `Store.unfinished`."""
        with self._used():
            begun = list(self._incoming.iterdir())
        for path in _older(begun, seconds):
            yield f"{path.parent.name}/{path.name}"

    def discard(self, name: str) -> None:
        """See `Store.discard`."""
        with self._used():
            (self._incoming / Path(name).name).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        with self._used():
            troubles.try_to_write(self._incoming)

    def close(self) -> None:
        """See `Store.close`: there are none."""

    def path(self, key: str) -> Path:
        """Where the object of this key lies.

        Raises:
            ValueError: not a key that `key_of` made.
        """
        return self.root / checked_key(key)

    def _make(self, directory: Path) -> None:
        """A directory of the store; where its root is open to a group, so is all that lies in it."""
        try:
            directory.mkdir()
        except FileExistsError:
            return
        if self._is_shared:
            directory.chmod(stat.S_IMODE(self.root.stat().st_mode) & ~OTHERS)

    def _stat(self, key: str) -> os.stat_result | None:
        path = self.path(key)
        with self._used():
            try:
                return path.stat()
            except FileNotFoundError:
                self._check_there()
                return None

    def _used(self) -> AbstractContextManager[None]:
        return troubles.of_directory(self.root, SETTING)

    def _check_there(self) -> None:
        """An object that is missing is one thing; a whole store that is, as on a disk that is not mounted, another."""
        if not self._incoming.is_dir():
            raise StoreUnavailable(
                f"{SETTING}: expected the store at {self.root}, got none there; mount it, or bring it back"
            )

    def _publish(self, incoming: Path, target: Path) -> None:
        if target.exists():  # same digest, same bytes: objects never change
            target.touch()  # but it was put now, and is not garbage
            return
        self._make(target.parent)
        incoming.chmod(0o440 if self._is_shared else 0o400)
        incoming.replace(target)
        _sync_directory(target.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _older(paths: Iterable[Path], seconds: float) -> Iterator[Path]:
    limit = time.time() - seconds
    for path in paths:
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < limit:
                yield path
