"""What a worker does with new versions: take one, then accept or reject it. An accepted one waits for its check."""

from typing import Any

from sqlalchemy.orm import Session

from app.db import leases
from app.db.leases import Lease
from app.models import checks
from app.models.tables import VersionRow
from app.settings import MAX_ATTEMPTS


def claim_validation(session: Session, worker: str, seconds: int = 60) -> Lease | None:
    """Take the oldest version that nobody is looking at."""
    free = (VersionRow.status == "validating") & VersionRow.lease_worker.is_(None)
    claimed = leases.claim(session, VersionRow, free, worker, seconds)
    return None if claimed is None else claimed[0]


def heartbeat_validation(session: Session, lease: Lease) -> None:
    """Stay alive.

    Raises:
        LeaseLost: another worker has the version now.
    """
    leases.renew(session, VersionRow, lease)


def accept_version(session: Session, lease: Lease, *, fingerprint: str, parameters: int, macs: int) -> None:
    """The weights fit and the network runs.

    Raises:
        LeaseLost: another worker has the version now.
    """
    row = leases.held(session, VersionRow, lease)
    row.status, row.fingerprint, row.parameters, row.macs = "ready", fingerprint, parameters, macs
    leases.drop(row)
    checks.ask_for_version(session, row)


def reject_version(session: Session, lease: Lease, problem: dict[str, Any]) -> None:
    """The version cannot be used; `problem` has at least `code` and `detail`.

    Raises:
        LeaseLost: another worker has the version now.
    """
    row = leases.held(session, VersionRow, lease)
    _reject(row, problem)
    leases.drop(row)


def release_validation(session: Session, lease: Lease) -> None:
    """Give the version back untried.

    Raises:
        LeaseLost: another worker has the version now.
    """
    leases.drop(leases.held(session, VersionRow, lease))


def crashed_validation(session: Session, lease: Lease, reason: str, most: int = MAX_ATTEMPTS) -> None:
    """The process that loaded the weights died; one attempt is used.

    Raises:
        LeaseLost: another worker has the version now.
    """
    row = leases.held(session, VersionRow, lease)
    leases.count_attempt(row)
    _reject_hopeless(row, reason, most)


def sweep_validations(session: Session, most: int = MAX_ATTEMPTS) -> int:
    """Take versions back from dead workers; one that killed `most` of them is rejected, or its check ends. Returns how
    many.
    """
    rows = leases.take_back(session, VersionRow)
    for row in rows:
        if row.status == "validating":
            _reject_hopeless(row, "the worker fell silent", most)
        elif row.attempts >= most:
            checks.end_crashed(session, row, "the worker fell silent")
    return len(rows)


def _reject_hopeless(row: VersionRow, reason: str, most: int) -> None:
    if row.attempts >= most:
        _reject(row, {"code": "attempts_exhausted", "detail": f"{_GAVE_UP.format(most)}; the last time {reason}"})


def _reject(row: VersionRow, problem: dict[str, Any]) -> None:
    """Mark a version as unusable; a check that was asked for when it was added does not begin."""
    row.status, row.problem, row.checking = "rejected", problem, None


_GAVE_UP = (
    "expected a worker to load the weights, got {} attempts that died; are they too large for the workers' memory?"
)
