"""Where large files live: immutable objects named by the digest of their bytes.

Keys are made here, from digests only, so no client ever names a path. Put the
object first and the row that mentions it second.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from app.zoo.errors import DigestMismatch, NotFound, Problem

_CHUNK = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Stored:
    """An object that is in the store."""

    key: str
    digest: str
    """SHA-256 of the bytes, 64 hexadecimal digits."""
    bytes: int


class Store(Protocol):
    """The four verbs of an object store."""

    def put(self, source: Path | Iterable[bytes], *, expected: str | None = None) -> Stored:
        """Keep a file or a stream of bytes; storing the same bytes twice keeps one object.

        Args:
            source: A file, which stays as it is, or chunks of bytes.
            expected: Digest that the bytes must have.

        Raises:
            DigestMismatch: the bytes have another digest; nothing was kept.
        """

    def open(self, key: str) -> BinaryIO:
        """Read an object from its first byte; the stream can seek.

        Raises:
            NotFound: there is no such object.
        """

    def size(self, key: str) -> int | None:
        """Bytes of an object; None when there is none."""

    def delete(self, key: str) -> None:
        """Remove an object; it may be gone already."""

    def older_than(self, seconds: float) -> Iterator[str]:
        """Keys of objects that were last put longer ago."""


def key_of(digest: str) -> str:
    """The key under which bytes of this digest are kept.

    Raises:
        ValueError: not 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.match(digest):
        raise ValueError(f"expected 64 lower-case hexadecimal digits, got {digest!r:.80}")
    return f"{digest[:2]}/{digest[2:]}"


class DirectoryStore:
    """Objects as files of one directory.

    Args:
        root: The directory; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def put(self, source: Path | Iterable[bytes], *, expected: str | None = None) -> Stored:
        """See `Store.put`; the object appears whole or not at all."""
        handle, name = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                digest, size = _copy(source, file)
            if expected is not None and digest != expected:
                raise DigestMismatch([_mismatch(expected, digest)])
            self._publish(Path(name), self.path(key_of(digest)))
        finally:
            Path(name).unlink(missing_ok=True)
        return Stored(key_of(digest), digest, size)

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        try:
            return self.path(key).open("rb")
        except FileNotFoundError:
            raise NotFound(f"expected the object {key}, got none; the store has lost it, upload it again") from None

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self.path(key).unlink(missing_ok=True)

    def older_than(self, seconds: float) -> Iterator[str]:
        """See `Store.older_than`; unfinished files of that age are removed on the way."""
        limit = time.time() - seconds
        for path in (p for p in self.root.rglob("*") if p.is_file() and p.stat().st_mtime < limit):
            if path.parent == self._incoming:
                path.unlink(missing_ok=True)
            else:
                yield f"{path.parent.name}/{path.name}"

    def path(self, key: str) -> Path:
        """Where the object of this key lies.

        Raises:
            ValueError: not a key that `key_of` made.
        """
        if key != key_of(key.replace("/", "", 1)):
            raise ValueError(f"expected a key of this store, got {key!r:.80}")
        return self.root / key

    def _publish(self, incoming: Path, target: Path) -> None:
        if target.exists():  # same digest, same bytes: objects never change
            target.touch()  # but it was put now, and is not garbage
            return
        target.parent.mkdir(exist_ok=True)
        incoming.chmod(0o444)
        incoming.replace(target)
        _sync_directory(target.parent)


@contextmanager
def local_file(store: Store, key: str) -> Iterator[Path]:
    """A readable path of an object, for libraries that want one; copied only when the store is remote.

    Raises:
        NotFound: there is no such object.
    """
    with store.open(key) as stream:
        if isinstance(store, DirectoryStore):
            yield store.path(key)
            return
        with tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(stream, copy, _CHUNK)
            copy.flush()
            yield Path(copy.name)


@contextmanager
def verified_file(store: Store, key: str, digest: str) -> Iterator[Path]:
    """A readable path of an object whose bytes have just been hashed.

    Raises:
        NotFound: there is no such object.
        DigestMismatch: the stored bytes are not the ones that were put.
    """
    with local_file(store, key) as path:
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != digest:
            raise DigestMismatch([_mismatch(digest, got)])
        yield path


def read_chunks(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Chunks of at most 1 MiB up to the end, or `size` bytes in all."""
    left = size
    while left is None or left > 0:
        chunk = file.read(_CHUNK if left is None else min(_CHUNK, left))
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


def _copy(source: Path | Iterable[bytes], target: BinaryIO) -> tuple[str, int]:
    hasher, size = hashlib.sha256(), 0
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _copy(read_chunks(file), target)
    for chunk in source:
        hasher.update(chunk)
        target.write(chunk)
        size += len(chunk)
    target.flush()
    os.fsync(target.fileno())
    return hasher.hexdigest(), size


def _mismatch(expected: str, got: str) -> Problem:
    detail = f"expected bytes with SHA-256 {expected}, got {got}; the file changed on its way, upload it again"
    return Problem("/sha256", DigestMismatch.code, detail)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
