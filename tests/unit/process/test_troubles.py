"""One classification of errors: caused by the environment, or not."""

import errno
import logging
import os

import pytest
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import Misconfigured, NotFound, StoreUnavailable
from app.process.troubles import Complaints, is_full, is_passing, reason

GONE = Exception("server closed the connection unexpectedly")
ENVIRONMENT = [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "objects"), "No such file or directory: objects"),
    (OperationalError("SELECT", {}, GONE), "the database does not answer: server closed"),
    (DatabaseError("SELECT", {}, Exception("database disk image is malformed")), "the database does not answer"),
    (PoolTimeout("QueuePool limit of size 8 overflow 32 reached"), "the database does not answer: QueuePool"),
    (StoreUnavailable("expected the object store to answer, got none"), "expected the object store to answer"),
    (MemoryError(), "no memory is left: MemoryError"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "no memory is left: DefaultCPUAllocator"),
]
OTHERS = [
    IsADirectoryError(errno.EISDIR, "Is a directory"),  # an object of the store that is damaged
    TimeoutError("no errno"),
    NotFound("gone"),
    RuntimeError("mat1 and mat2"),
    KeyError("x"),
    ProgrammingError("SELECT", {}, Exception("syntax error")),
    IntegrityError("INSERT", {}, Exception("duplicate key")),
]


@pytest.mark.parametrize(("error", "said"), ENVIRONMENT, ids=lambda value: str(value)[:30])
def test_errors_of_the_environment_have_a_reason_and_pass(error: Exception, said: str) -> None:
    assert (reason(error) or "").startswith(said)
    assert is_passing(error)


@pytest.mark.parametrize("error", OTHERS, ids=lambda value: type(value).__name__)
def test_other_errors_have_no_reason_and_do_not_pass(error: Exception) -> None:
    assert reason(error) is None
    assert not is_passing(error)


def test_a_wrong_setting_has_a_reason_but_does_not_pass() -> None:
    error = Misconfigured("PNC_STORE_URL: expected a directory")
    assert reason(error) == str(error)
    assert not is_passing(error)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OperationalError("INSERT", {}, Exception("database or disk is full")), True),
        (OperationalError("INSERT", {}, GONE), False),
    ],
)
def test_a_full_disk_is_told_from_a_database_that_is_away(error: Exception, full: bool) -> None:
    assert is_full(error) is full


def test_the_same_error_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    complain = Complaints(logging.getLogger("test"))
    for _ in range(3):
        complain("cannot poll", OperationalError("SELECT", {}, GONE))
        complain("cannot poll", KeyError("x"))
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]
