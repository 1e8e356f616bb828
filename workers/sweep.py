"""The background work of every worker: recover rows, announce jobs again, validate versions, collect garbage.

Any number of workers may do this at the same time.
"""

import logging
import math
import time
from collections.abc import Callable

from app.datasets import inspections
from app.db import clock
from app.db.changes import Changes
from app.imports import runs as imports
from app.jobs import notifier, recovery, steps
from app.lifecycle import garbage, retention
from app.models import checks, validation
from app.process.troubles import Complaints
from app.webhooks import outbox
from workers.supervisor import CHECK, IMPORT, INSPECTION, POLL_SECONDS, VERSION, Supervisor

_complain = Complaints(logging.getLogger(__name__))
SWEEP_SECONDS = 1.0
GARBAGE_SECONDS = 3600.0
UNREACHABLE_SECONDS = 5.0
"""Pause after an error whose cause is not the row."""
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
    """Sweep every second until the supervisor is stopped."""
    zoo, stop, next_garbage = supervisor.zoo, supervisor.stop, 0.0
    lease = zoo.settings.lease_seconds
    contact = DatabaseContact(SWEEP_SECONDS + lease / 2, lease)  # in less than half a lease none expires
    while not stop.is_set():
        try:
            with zoo.database.write() as session:
                clock.now(session)
                if contact.note_success():
                    validation.sweep_validations(session, zoo.settings.max_attempts)
                    imports.sweep(session, zoo.settings.max_attempts)
                    inspections.sweep(session, zoo.settings.max_attempts)
                    steps.sweep(session)
                    outbox.sweep(session)
                    recovery.sweep(session, zoo.settings.max_attempts)
                if zoo.database.notifier is not None and supervisor.is_idle:
                    seconds, sizes = zoo.settings.ring_again_seconds, zoo.settings.worker_sizes
                    notifier.announce_again(session, seconds, supervisor.devices, sizes)
            if time.monotonic() >= next_garbage:
                next_garbage = time.monotonic() + GARBAGE_SECONDS
                retention.purge(zoo, retention.find(zoo))
                garbage.collect(zoo)
        except Exception as error:  # any error: without sweeps, rows of dead workers would stay leased
            contact.note_failure()
            _complain("cannot sweep; trying again", error)
            stop.wait(UNREACHABLE_SECONDS)
        stop.wait(SWEEP_SECONDS)


def check_versions(supervisor: Supervisor) -> None:
    """Validate new versions, and check ready ones while no new one waits, until the supervisor is stopped."""

    def take() -> bool:
        worker = supervisor.name, supervisor.zoo.settings.lease_seconds
        with supervisor.zoo.database.write() as session:
            lease, kind = validation.claim_validation(session, *worker), VERSION
            if lease is None:
                lease, kind = checks.claim(session, *worker), CHECK
        return lease is not None and supervisor.run_row(kind, lease)

    repeat(take, supervisor)


def run_imports(supervisor: Supervisor) -> None:
    """Run imports, one after another, until the supervisor is stopped."""

    def take() -> bool:
        with supervisor.zoo.database.write() as session:
            lease = imports.claim(session, supervisor.name, supervisor.zoo.settings.lease_seconds)
        return lease is not None and supervisor.run_row(IMPORT, lease)

    repeat(take, supervisor)


def inspect_datasets(supervisor: Supervisor) -> None:
    """Inspect new datasets, one after another, until the supervisor is stopped."""

    def take() -> bool:
        with supervisor.zoo.database.write() as session:
            lease = inspections.claim(session, supervisor.name, supervisor.zoo.settings.lease_seconds)
        return lease is not None and supervisor.run_row(INSPECTION, lease)

    repeat(take, supervisor)


def repeat(take: Callable[[], bool], supervisor: Supervisor) -> None:
    """Call `take` until the supervisor is stopped.

    Pauses when `take` returns false, until the database has changed or `UNCHANGED_SECONDS` have passed, in which rows
    may have become due. Pauses longer after an error.
    """
    stop = supervisor.stop
    with Changes(supervisor.zoo.database) as changes:
        while not stop.is_set():
            changes.look()
            try:
                until = time.monotonic() + (0.0 if take() else UNCHANGED_SECONDS)
            except Exception as error:  # any error: a worker that claims no rows would still look alive
                _complain("cannot claim or run a row; trying again", error)
                stop.wait(UNREACHABLE_SECONDS)
                continue
            while time.monotonic() < until and not stop.wait(POLL_SECONDS) and not changes.look():
                pass
