"""Which errors pass by themselves: the same may work in a moment, and nothing is wrong with what was to be loaded."""

import errno
import os

import torch
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.zoo.errors import NotFound, StoreUnavailable
from app.zoo.store import Store

_TYPES = (OSError, MemoryError, torch.OutOfMemoryError, DBAPIError, PoolTimeout)
_NO_MEMORY = ("can't allocate memory", os.strerror(errno.ENOMEM).lower())
"""Torch's allocator for processors has no error of its own."""
FUTURE = -3600.0
"""An age that every object has, however clocks differ."""


def is_passing(error: BaseException) -> bool:
    """Whether store, database, disk or memory are at fault, and not what was to be loaded."""
    if isinstance(error, _TYPES):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


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
        if next(iter(store.older_than(FUTURE)), None) is not None:
            return error
    except OSError as away:
        return away
    return StoreUnavailable(f"expected objects in the object store, got an empty one; is it the right one? ({error})")
