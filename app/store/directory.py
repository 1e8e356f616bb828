"""Objects as files of a directory: the store of the embedded service."""

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
    """Objects as files of a directory; see `Store`.

    Args:
        root: The directory; created if missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / INCOMING
        root.mkdir(parents=True, exist_ok=True)
        self._is_shared = is_shared(root)
        self._make(self._incoming)

    def put(self, source: Path | Iterable[bytes], *, expected: str | None = None) -> Stored:
        """See `Store.put`. The object appears complete or not at all."""
        with self._translated_errors():
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
        with self._translated_errors():
            try:
                return path.open("rb")
            except FileNotFoundError:
                self._check_mounted()
                raise lost(key) from None

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """See `Store.local`."""
        self.open(key).close()
        yield self.path(key)

    def link(self, key: str, filename: str) -> str | None:
        """See `Store.link`: always None."""
        return None

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        found = self._stat(key)
        return None if found is None else found.st_size

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        path = self.path(key)
        with self._translated_errors():
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
        with self._translated_errors():
            begun = list(self._incoming.iterdir())
        for path in _older(begun, seconds):
            yield f"{path.parent.name}/{path.name}"

    def discard(self, name: str) -> None:
        """See `Store.discard`."""
        with self._translated_errors():
            (self._incoming / Path(name).name).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        with self._translated_errors():
            troubles.try_to_write(self._incoming)

    def close(self) -> None:
        """See `Store.close`: a directory has no connections."""

    def path(self, key: str) -> Path:
        """Path of the object with this key.

        Raises:
            ValueError: `key_of` makes no such key.
        """
        return self.root / checked_key(key)

    def _make(self, directory: Path) -> None:
        """Create a directory of the store. If the root is shared with a group, so is the new directory."""
        try:
            directory.mkdir()
        except FileExistsError:
            return
        if self._is_shared:
            directory.chmod(stat.S_IMODE(self.root.stat().st_mode) & ~OTHERS)

    def _stat(self, key: str) -> os.stat_result | None:
        path = self.path(key)
        with self._translated_errors():
            try:
                return path.stat()
            except FileNotFoundError:
                self._check_mounted()
                return None

    def _translated_errors(self) -> AbstractContextManager[None]:
        return troubles.of_directory(self.root, SETTING)

    def _check_mounted(self) -> None:
        """Raise an error if the whole store is missing, as on an unmounted disk, and not only one object."""
        if not self._incoming.is_dir():
            raise StoreUnavailable(
                f"{SETTING}: expected the store at {self.root}, got none there; mount its disk, or bring it back"
            )

    def _publish(self, incoming: Path, target: Path) -> None:
        if target.exists():  # equal digests mean equal bytes
            target.touch()  # a recent object does not count as garbage
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
