"""Errors of the zoo.

    ZooError                      everything raised on purpose
    ├── NotFound                  no such thing
    ├── Conflict                  the thing is not in a state that allows this
    │   ├── AlreadyExists         the name is taken
    │   ├── InvalidTransition     a job cannot go from its state to that one
    │   ├── TargetMismatch        a module was cloned for another target
    │   ├── Unsigned              a module that no trusted key has signed, where that is required
    │   ├── Archived              it was put away, and takes no new work
    │   ├── InUse                 what shall be purged is needed; carries one Problem an obstacle
    │   └── ClassCollision        two attached modules, or module and target, name the same class
    ├── Invalid                   the request makes no sense; carries one Problem a fault
    │   ├── DigestMismatch        bytes are not the announced ones
    │   └── KeyReused             an Idempotency-Key came back with another request
    ├── TooLarge                  more bytes than allowed
    ├── StaleRevision             If-Match names a generation that has passed
    ├── Unauthenticated           no key, or none that is in force
    ├── Forbidden                 the key lacks the scope
    ├── TooMany                   too much at once; says when to come again
    │   └── QuotaExceeded         more than the workspace may have
    ├── LeaseLost                 another worker, or the sweeper, has taken the row
    ├── StoreUnavailable          the object store does not answer, or refuses
    │   └── NoSpace               there is no room left to write to
    ├── Loading                   a deployment that is wanted is not served yet
    └── Misconfigured             a setting leads nowhere

Every message says what was expected, what was got and what to do. `code` is
stable and machine-readable; the HTTP API repeats it.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault of a request."""

    pointer: str
    """JSON pointer into the body (`/config/classes`), or `query:limit` and the like."""
    code: str
    """Stable, machine-readable."""
    detail: str
    """Expected, got and what to do."""


class ZooError(Exception):
    """Base of all errors the zoo raises on purpose."""

    code = "zoo_error"


class NotFound(ZooError):
    """No such thing."""

    code = "not_found"


class Conflict(ZooError):
    """The thing is not in a state that allows this."""

    code = "conflict"


class AlreadyExists(Conflict):
    """The name is taken."""

    code = "already_exists"


class InvalidTransition(Conflict):
    """A job cannot go from its state to that one."""

    code = "invalid_transition"


class TargetMismatch(Conflict):
    """A module was cloned for another target."""

    code = "target_mismatch"


class ClassCollision(Conflict):
    """Two attached modules, or module and target, name the same class."""

    code = "class_collision"


class Unsigned(Conflict):
    """A module that no trusted key has signed, where that is required."""

    code = "unsigned"


class Archived(Conflict):
    """It was put away, and takes no new work."""

    code = "archived"


class InUse(Conflict):
    """What shall be purged is needed.

    Args:
        problems: At least one obstacle.
    """

    code = "in_use"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(p.detail for p in problems))
        self.problems = list(problems)


class Invalid(ZooError):
    """The request makes no sense.

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
    """Bytes are not the announced ones."""

    code = "digest_mismatch"


class KeyReused(Invalid):
    """An Idempotency-Key came back with another request."""

    code = "idempotency_key_reused"


class TooLarge(ZooError):
    """More bytes than allowed."""

    code = "too_large"


class StaleRevision(ZooError):
    """If-Match names a generation that has passed."""

    code = "stale_revision"


class Unauthenticated(ZooError):
    """No key, or none that is in force."""

    code = "unauthenticated"


class Forbidden(ZooError):
    """The key lacks the scope."""

    code = "forbidden"


class TooMany(ZooError):
    """Too much at once.

    Args:
        detail: Expected, got and what to do.
        seconds: When to come again.
    """

    code = "too_many_requests"

    def __init__(self, detail: str, seconds: int) -> None:
        super().__init__(detail)
        self.seconds = seconds


class QuotaExceeded(TooMany):
    """More than the workspace may have."""

    code = "quota_exceeded"


class LeaseLost(ZooError):
    """Another worker, or the sweeper, has taken the row: stop and write nothing more."""

    code = "lease_lost"


class StoreUnavailable(ZooError, OSError):
    """The object store does not answer, or refuses; the same may work in a moment."""

    code = "store_unavailable"


class NoSpace(StoreUnavailable):
    """There is no room left to write to: on a disk, in a quota, or in a bucket."""

    code = "insufficient_storage"


class Loading(ZooError):
    """A deployment that is wanted is not served yet; the same request may work in a moment."""

    code = "loading"


class Misconfigured(ZooError, ValueError):
    """A setting leads nowhere; the message names it and is one line."""

    code = "misconfigured"
