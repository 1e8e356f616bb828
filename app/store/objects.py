"""Where large files live: immutable objects named by the digest of their bytes.

Keys are made here, from digests only, so no client ever names a path. Put the
object first and the row that mentions it second. A directory (`app.store.directory`)
and a bucket (`app.store.s3`) keep the same promises.
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
"""Bytes that are read and hashed at once."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_FUTURE = -3600.0
"""An age that every object has, however clocks differ."""
_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{62}\Z")


@dataclass(frozen=True)
class Stored:
    """An object that is in the store."""

    key: str
    digest: str
    """SHA-256 of the bytes, 64 hexadecimal digits."""
    bytes: int


class Store(Protocol):
    """The verbs of an object store.

    All of them raise `StoreUnavailable`, or another `OSError`, when it does not answer or refuses; `NoSpace` is one.
    """

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

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A readable path of an object, for libraries that want one; copied only when the store is remote.

        Raises:
            NotFound: there is no such object.
        """

    def link(self, key: str, filename: str) -> str | None:
        """A URL from which a client can read the object without us, for a while; None: there is no such way."""

    def size(self, key: str) -> int | None:
        """Bytes of an object; None when there is none."""

    def age(self, key: str) -> float | None:
        """Seconds since an object was last put, by the store's own clock; None when there is none."""

    def delete(self, key: str) -> None:
        """Remove an object; it may be gone already."""

    def older_than(self, seconds: float) -> Iterator[str]:
        """Keys of objects that were last put longer ago."""

    def unfinished(self, seconds: float) -> Iterator[str]:
        """Names of transfers into the store that began longer ago and have not ended."""

    def discard(self, name: str) -> None:
        """Remove what such a transfer has brought so far; it may be gone already."""

    def check_writable(self) -> None:
        """See that objects can be put; a bucket only says whether it answers, since each put there costs money."""

    def close(self) -> None:
        """Close connections."""


def key_of(digest: str) -> str:
    """The key under which bytes of this digest are kept.

    Raises:
        ValueError: not 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.match(digest):
        raise ValueError(f"expected 64 lower-case hexadecimal digits, got {digest!r:.80}")
    return f"{digest[:2]}/{digest[2:]}"


def checked_key(key: str) -> str:
    """The key itself.

    Raises:
        ValueError: not a key that `key_of` made.
    """
    if key != key_of(key.replace("/", "", 1)):
        raise ValueError(f"expected a key of this store, got {key!r:.80}")
    return key


def is_key(text: str) -> bool:
    """Whether this is a key that `key_of` made."""
    return bool(_KEY.match(text))


def lost(key: str) -> NotFound:
    """The error that an object is not there."""
    return NotFound(f"expected the object {key}, got none; the store has lost it, upload it again")


def seen_through(store: Store, error: Exception) -> Exception:
    """The error itself, or what it really means.

    A store that holds nothing at all has not lost one object: a disk that is not mounted looks like that.

    Args:
        store: Where an object was looked for.
        error: What came of it.
    """
    if not isinstance(error, NotFound):
        return error
    try:
        if next(iter(store.older_than(_FUTURE)), None) is not None:
            return error
    except OSError as away:
        return away
    return StoreUnavailable(f"expected objects in the object store, got an empty one; is it the right one? ({error})")


def copy_hashed(source: Path | Iterable[bytes], target: BinaryIO) -> tuple[str, int]:
    """Write a file or a stream of bytes into `target`; returns digest and bytes."""
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
    """A readable path of an object whose bytes have just been hashed.

    Raises:
        NotFound: there is no such object.
        DigestMismatch: the stored bytes are not the ones that were put.
    """
    with store.local(key) as path:
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != digest:
            raise mismatch(digest, got)
        yield path


def read_chunks(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Chunks of at most 1 MiB up to the end, or `size` bytes in all."""
    left = size
    while left is None or left > 0:
        chunk = file.read(CHUNK if left is None else min(CHUNK, left))
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


def mismatch(expected: str, got: str) -> DigestMismatch:
    """The error that bytes are not the announced ones."""
    detail = f"expected bytes with SHA-256 {expected}, got {got}; the file changed on its way, upload it again"
    return DigestMismatch([Problem("/sha256", DigestMismatch.code, detail)])
