"""The object store: immutable objects named by the digest of their bytes.

A key is made of a digest, so that no client chooses a path. Put the object first, and
write the row that refers to it second. `app.store.directory` and `app.store.s3` implement
the store.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from app.errors import DigestMismatch, NotFound, Problem, StoreUnavailable

CHUNK = 1024 * 1024
"""Bytes that are read and hashed at a time."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_FUTURE = -3600.0
"""A negative age in seconds, so that every object is older, even with differing clocks."""
_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{62}\Z")


@dataclass(frozen=True)
class Stored:
    """An object in the store."""

    key: str
    digest: str
    """SHA-256 of the bytes, 64 hexadecimal digits."""
    bytes: int


class Store(Protocol):
    """An object store.

    Every method raises `StoreUnavailable`, its subclass `NoSpace` or another `OSError` if the store does not answer or
    refuses the request.
    """

    def put(self, source: Path | Iterable[bytes], *, expected: str | None = None) -> Stored:
        """Store a file or a stream of bytes. Equal bytes are stored once.

        Args:
            source: A file, which stays unchanged, or chunks of bytes.
            expected: Digest that the bytes must have; None: any.

        Raises:
            DigestMismatch: the bytes have another digest. Nothing is stored.
        """

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading, as a seekable stream.

        Raises:
            NotFound: the object does not exist.
        """

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A local path of an object, for libraries that need one. A remote store makes a temporary copy.

        Raises:
            NotFound: the object does not exist.
        """

    def link(self, key: str, filename: str) -> str | None:
        """A temporary URL from which a client can read the object; None: the store has no URLs."""

    def size(self, key: str) -> int | None:
        """Bytes of an object; None: it does not exist."""

    def age(self, key: str) -> float | None:
        """Seconds since an object was last put, by the store's clock; None: it does not exist."""

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""

    def older_than(self, seconds: float) -> Iterator[str]:
        """Keys of objects that were last put more than `seconds` ago."""

    def unfinished(self, seconds: float) -> Iterator[str]:
        """Names of unfinished transfers into the store that began more than `seconds` ago."""

    def discard(self, name: str) -> None:
        """Remove the bytes of an unfinished transfer if they exist."""

    def check_writable(self) -> None:
        """Check that objects can be put. A bucket only checks that it answers, because each put costs money."""

    def close(self) -> None:
        """Close connections."""


def key_of(digest: str) -> str:
    """Key of the object with this digest.

    Raises:
        ValueError: the digest is not 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.match(digest):
        raise ValueError(f"expected 64 lower-case hexadecimal digits, got {digest!r:.80}")
    return f"{digest[:2]}/{digest[2:]}"


def checked_key(key: str) -> str:
    """Return the key if it is valid.

    Raises:
        ValueError: `key_of` makes no such key.
    """
    if key != key_of(key.replace("/", "", 1)):
        raise ValueError(f"expected a key of this store, got {key!r:.80}")
    return key


def is_key(text: str) -> bool:
    """Whether the text is a key as `key_of` makes it."""
    return bool(_KEY.match(text))


def lost(key: str) -> NotFound:
    """The error for an object that the store has lost."""
    return NotFound(f"expected the object {key}, got none; the store has lost it, upload it again")


def seen_through(store: Store, error: Exception) -> Exception:
    """Replace `NotFound` by `StoreUnavailable` if the whole store is empty, as on an unmounted disk.

    Args:
        store: The store that was searched for an object.
        error: The error of the search.

    Returns:
        The error itself, or the more exact one.
    """
    if not isinstance(error, NotFound):
        return error
    try:
        if next(iter(store.older_than(_FUTURE)), None) is not None:
            return error
    except OSError as away:
        return away
    return StoreUnavailable(f"expected objects in the object store, got an empty one; check the address ({error})")


def copy_hashed(source: Path | Iterable[bytes], target: BinaryIO) -> tuple[str, int]:
    """Write a file or a stream of bytes into `target`; returns SHA-256 and number of bytes."""
    hasher, size = hashlib.sha256(), 0
    if isinstance(source, Path):
        with source.open("rb") as file:
            return copy_hashed(read_chunks(file), target)
    for chunk in source:
        hasher.update(chunk)
        target.write(chunk)
        size += len(chunk)
    target.flush()
    return hasher.hexdigest(), size


@contextmanager
def verified_file(store: Store, key: str, digest: str) -> Iterator[Path]:
    """A local path of an object whose digest has been checked.

    Raises:
        NotFound: the object does not exist.
        DigestMismatch: the stored bytes have another digest.
    """
    with store.local(key) as path:
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != digest:
            raise mismatch(digest, got)
        yield path


def read_chunks(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Chunks of at most 1 MiB, up to the end of the file or `size` bytes in all."""
    left = size
    while left is None or left > 0:
        chunk = file.read(CHUNK if left is None else min(CHUNK, left))
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


def mismatch(expected: str, got: str) -> DigestMismatch:
    """The error for bytes with another digest than announced."""
    detail = f"expected bytes with SHA-256 {expected}, got {got}; the file changed on its way, upload it again"
    return DigestMismatch([Problem("/sha256", DigestMismatch.code, detail)])
