"""Errors of the zoo.

    ZooError                      base class of all errors that the service raises on purpose
    ├── NotFound                  the thing does not exist
    ├── Conflict                  the state of the thing does not allow the request
    │   ├── AlreadyExists         the name is taken
    │   ├── InvalidTransition     a job cannot change from its state to the requested one
    │   ├── TargetMismatch        a module was cloned for another target
    │   ├── Unsigned              the workspace requires a signature by a trusted key, and the module has none
    │   ├── Archived              an archived thing takes no new work
    │   ├── InUse                 a thing to be purged is still needed; holds one Problem for each obstacle
    │   └── ClassCollision        two attached modules, or a module and its target, have a class of the same name
    ├── Invalid                   the request is invalid; holds one Problem for each fault
    │   ├── DigestMismatch        the bytes have another digest than announced
    │   └── KeyReused             an Idempotency-Key was used for another request
    ├── TooLarge                  more bytes than allowed
    ├── StaleRevision             If-Match names an older generation
    ├── Unauthenticated           the key is missing, unknown, expired or revoked
    ├── Forbidden                 the key lacks the scope
    ├── TooMany                   too many requests at once; says when to retry
    │   └── QuotaExceeded         a quota of the workspace is exceeded
    ├── LeaseLost                 another worker or the sweeper has taken the row
    ├── StoreUnavailable          the object store does not answer, or refuses the request
    │   └── NoSpace               a disk, a quota or a bucket is full
    ├── NotEnoughMemory           a job needs more memory than its worker has
    │   └── MemoryInUse           other processes use the memory that a job needs
    ├── Loading                   a wanted deployment is not served yet
    └── Misconfigured             a setting is wrong

Every message says what was expected, what was got and what to do. `code` is
stable and machine-readable, and part of the HTTP API.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault of a request."""

    pointer: str
    """JSON pointer into the body (`/config/classes`), or a parameter such as `query:limit` or `header:If-Match`."""
    code: str
    """Stable, machine-readable code."""
    detail: str
    """Message: expected, got, what to do."""


class ZooError(Exception):
    """Base class of all errors that the service raises on purpose."""

    code = "zoo_error"


class NotFound(ZooError):
    """The thing does not exist."""

    code = "not_found"


class Conflict(ZooError):
    """The state of the thing does not allow the request."""

    code = "conflict"


class AlreadyExists(Conflict):
    """The name is taken."""

    code = "already_exists"


class InvalidTransition(Conflict):
    """A job cannot change from its state to the requested one."""

    code = "invalid_transition"


class TargetMismatch(Conflict):
    """A module was cloned for another target."""

    code = "target_mismatch"


class ClassCollision(Conflict):
    """Two attached modules, or a module and its target, have a class of the same name."""

    code = "class_collision"


class Unsigned(Conflict):
    """The workspace requires a signature by a trusted key, and the module has none."""

    code = "unsigned"


class Archived(Conflict):
    """An archived thing takes no new work."""

    code = "archived"


class InUse(Conflict):
    """A thing to be purged is still needed.

    Args:
        problems: At least one obstacle.
    """

    code = "in_use"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(p.detail for p in problems))
        self.problems = list(problems)


class Invalid(ZooError):
    """The request is invalid.

    Args:
        problems: At least one fault.
    """

    code = "invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(p.detail for p in problems))
        self.problems = list(problems)

    @classmethod
    def at(cls, pointer: str, code: str, detail: str) -> "Invalid":
        """An error with a single fault."""
        return cls([Problem(pointer, code, detail)])


class DigestMismatch(Invalid):
    """The bytes have another digest than announced."""

    code = "digest_mismatch"


class KeyReused(Invalid):
    """An Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


class TooLarge(ZooError):
    """More bytes than allowed."""

    code = "too_large"


class StaleRevision(ZooError):
    """If-Match names an older generation."""

    code = "stale_revision"


class Unauthenticated(ZooError):
    """The key is missing, unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(ZooError):
    """The key lacks the scope."""

    code = "forbidden"


class TooMany(ZooError):
    """Too many requests at once.

    Args:
        detail: Message: expected, got, what to do.
        seconds: Seconds after which a client may retry.
    """

    code = "too_many_requests"

    def __init__(self, detail: str, seconds: int) -> None:
        super().__init__(detail)
        self.seconds = seconds


class QuotaExceeded(TooMany):
    """A quota of the workspace is exceeded."""

    code = "quota_exceeded"


class LeaseLost(ZooError):
    """Another worker or the sweeper has taken the row. Stop, and write nothing more for it."""

    code = "lease_lost"


class StoreUnavailable(ZooError, OSError):
    """The object store does not answer, or refuses the request. A retry may succeed."""

    code = "store_unavailable"


class NoSpace(StoreUnavailable):
    """A disk, a quota or a bucket is full."""

    code = "insufficient_storage"


class NotEnoughMemory(ZooError):
    """A job needs more memory than its worker has, by the estimate before its start."""

    code = "not_enough_memory"


class MemoryInUse(NotEnoughMemory):
    """Other processes use the memory that a job needs. A retry may succeed."""

    code = "memory_in_use"


class Loading(ZooError):
    """A wanted deployment is not served yet. A retry may succeed."""

    code = "loading"


class Misconfigured(ZooError, ValueError):
    """A setting is wrong. The message names the setting and is one line."""

    code = "misconfigured"
