"""The background work of every worker: recover rows, announce jobs again, validate versions, collect garbage.

Any number of workers may do this at the same time.
"""

import logging
import math
import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from app.compositions import runs as compositions
from app.compositions.tables import CompositionRow
from app.datasets import inspections
from app.datasets.tables import DatasetRow
from app.db import clock
from app.db.changes import Changes
from app.db.leases import Lease
from app.db.tables import Leased
from app.imports import runs as imports
from app.imports.tables import ImportRow
from app.jobs import notifier, recovery, steps
from app.jobs.wakeups import WakeUps
from app.lifecycle import garbage, retention
from app.models import checks, validation
from app.models.tables import VersionRow
from app.process.troubles import Complaints
from app.webhooks import outbox
from workers.supervisor import CHECK, COMPOSITION, IMPORT, INSPECTION, POLL_SECONDS, VERSION, Kind, Supervisor

_complain = Complaints(logging.getLogger(__name__))
SWEEP_SECONDS = 1.0
GARBAGE_SECONDS = 3600.0
COLLECTING_SECONDS = 4 * GARBAGE_SECONDS
"""Longest time that one collection may take: a bucket may have to be listed."""
CONTACT_SECONDS = 5.0
"""Interval at which a worker that has no turn to sweep contacts the database, and announces waiting jobs again."""
TURN = 0.9
"""Length of a turn, as a share of its interval: a worker that is alone always has the next turn."""
UNREACHABLE_SECONDS = 5.0
"""Pause after an error whose cause is not the row."""
MARK_SECONDS = 1
"""Longest wait for Redis in one call; a worker that is stopped ends after it."""
UNCHANGED_SECONDS = 2.0
"""Longest pause while the database does not change; rows may become due in it, for instance a repeated message."""


class DatabaseContact:
    """Tracks whether the database was reachable long enough for an expired lease to mean a dead worker.

    While the database is unreachable, no worker can renew a lease. The first worker that reaches it again must not take
    all others for dead.

    Args:
        gap: Seconds between two successes that count as an interruption.
        settling: Seconds after an interruption in which all workers renew their leases.
    """

    def __init__(self, gap: float, settling: float) -> None:
        self._gap, self._settling = gap, settling
        self._last, self._settled = math.inf, -math.inf

    def note_failure(self) -> None:
        """Record a failed write, for example on a full disk. It counts as an interruption: leases could not be
        renewed.
        """
        self._last = -math.inf

    def note_success(self) -> bool:
        """Record a successful write now. Returns whether expired leases belong to dead workers."""
        now = time.monotonic()
        if now > self._last + self._gap:
            self._settled = now + self._settling
        self._last = now
        return now >= self._settled


def sweep_regularly(supervisor: Supervisor) -> None:
    """Sweep until the supervisor is stopped: every second if no other worker does, see `Supervisor.has_turn`."""
    zoo, stop, next_contact, next_garbage = supervisor.zoo, supervisor.stop, 0.0, 0.0
    lease = zoo.settings.lease_seconds
    contact = DatabaseContact(SWEEP_SECONDS + lease / 2, lease)  # in less than half a lease none expires
    while not stop.is_set():
        supervisor.vitals.note()
        try:
            has_turn = supervisor.has_turn("sweep", TURN * SWEEP_SECONDS)
            if has_turn or time.monotonic() >= next_contact:
                next_contact = time.monotonic() + min(CONTACT_SECONDS, lease / 4)
                _sweep(supervisor, contact, recovers=has_turn)
            if time.monotonic() >= next_garbage:
                next_garbage = time.monotonic() + GARBAGE_SECONDS
                _collect(supervisor)
        except Exception as error:  # any error: without sweeps, rows of dead workers would stay leased
            contact.note_failure()
            _complain("cannot sweep; trying again", error)
            stop.wait(UNREACHABLE_SECONDS)
        stop.wait(SWEEP_SECONDS)


def _sweep(supervisor: Supervisor, contact: DatabaseContact, *, recovers: bool) -> None:
    """Keep in contact with the database, recover rows of dead workers, and announce jobs that this worker can run.

    Args:
        supervisor: The worker.
        contact: The worker's contact with the database.
        recovers: Whether this worker recovers rows now.
    """
    zoo = supervisor.zoo
    with zoo.database.write() as session:
        clock.now(session)
        if contact.note_success() and recovers:
            validation.sweep_validations(session, zoo.settings.max_attempts)
            imports.sweep(session, zoo.settings.max_attempts)
            compositions.sweep(session, zoo.settings.max_attempts)
            inspections.sweep(session, zoo.settings.max_attempts)
            steps.sweep(session)
            outbox.sweep(session)
            recovery.sweep(session, zoo.settings.max_attempts)
        if zoo.database.notifier is not None and supervisor.is_idle:
            seconds, sizes = zoo.settings.ring_again_seconds, zoo.settings.worker_sizes
            notifier.announce_again(session, seconds, supervisor.devices, sizes)


def _collect(supervisor: Supervisor) -> None:
    """Purge and collect garbage, unless another worker has done so within the hour: the whole store is listed."""
    if not supervisor.has_turn("garbage", TURN * GARBAGE_SECONDS):
        return
    zoo = supervisor.zoo
    supervisor.vitals.note(COLLECTING_SECONDS)
    retention.purge(zoo, retention.find(zoo))
    garbage.collect(zoo)


def check_versions(supervisor: Supervisor) -> None:
    """Validate new versions, and check ready ones while no new one waits, until the supervisor is stopped."""

    def take() -> bool:
        worker = supervisor.name, supervisor.zoo.settings.lease_seconds
        with supervisor.zoo.database.write() as session:
            lease, kind = validation.claim_validation(session, *worker), VERSION
            if lease is None:
                lease, kind = checks.claim(session, *worker), CHECK
        return lease is not None and supervisor.run_row(kind, lease)

    repeat(take, supervisor, VersionRow)


def run_imports(supervisor: Supervisor) -> None:
    """Run imports, one after another, until the supervisor is stopped."""
    _run_rows(supervisor, IMPORT, imports.claim, ImportRow)


def fit_compositions(supervisor: Supervisor) -> None:
    """Fit compositions, one after another, until the supervisor is stopped."""
    _run_rows(supervisor, COMPOSITION, compositions.claim, CompositionRow)


def inspect_datasets(supervisor: Supervisor) -> None:
    """Inspect new datasets, one after another, until the supervisor is stopped."""
    _run_rows(supervisor, INSPECTION, inspections.claim, DatasetRow)


def _run_rows(
    supervisor: Supervisor, kind: Kind, claim: Callable[[Session, str, int], Lease | None], table: type[Leased]
) -> None:
    def take() -> bool:
        with supervisor.zoo.database.write() as session:
            lease = claim(session, supervisor.name, supervisor.zoo.settings.lease_seconds)
        return lease is not None and supervisor.run_row(kind, lease)

    repeat(take, supervisor, table)


def repeat(take: Callable[[], bool], supervisor: Supervisor, table: type[Leased] | None = None) -> None:
    """Call `take` until the supervisor is stopped.

    Pauses when `take` returns false, until a row may wait. Pauses longer after an error.

    Args:
        take: Claims and runs a row; returns whether there was one.
        supervisor: The worker.
        table: Table of the rows, if Redis may tell that one waits; None: only the database tells.
    """
    stop = supervisor.stop
    with Changes(supervisor.zoo.database) as changes:
        while not stop.is_set():
            supervisor.vitals.note()
            changes.look()
            try:
                took = take()
            except Exception as error:  # any error: a worker that claims no rows would still look alive
                _complain("cannot claim or run a row; trying again", error)
                stop.wait(UNREACHABLE_SECONDS)
                continue
            if took:
                continue
            if supervisor.wake_ups is None or table is None:
                _await_change(supervisor, changes)
            else:
                _await_mark(supervisor, supervisor.wake_ups, table.__tablename__)  # type: ignore[attr-defined]


def _await_change(supervisor: Supervisor, changes: Changes) -> None:
    """Wait until the database has changed, or `UNCHANGED_SECONDS` have passed, in which rows may have become due."""
    until = time.monotonic() + UNCHANGED_SECONDS
    while time.monotonic() < until and not supervisor.stop.wait(POLL_SECONDS) and not changes.look():
        pass


def _await_mark(supervisor: Supervisor, wake_ups: WakeUps, table: str) -> None:
    """Wait until Redis tells that a row waits, or until it is this worker's turn to look, or Redis does not answer."""
    while not supervisor.stop.is_set():
        supervisor.vitals.note()
        found = wake_ups.wait(table, MARK_SECONDS)
        if found is None:
            supervisor.stop.wait(UNCHANGED_SECONDS)
        if found or found is None or wake_ups.has_turn(table, UNCHANGED_SECONDS):
            return
