"""What every worker does beside its jobs: take rows back, tell of jobs again, check versions, collect garbage.

All of it is safe to do from any number of workers at once.
"""

import logging
import math
import threading
import time
from collections.abc import Callable

from app.db import clock
from app.jobs import notifier, recovery, steps
from app.lifecycle import garbage, retention
from app.models import validation
from app.process.troubles import Complaints
from app.webhooks import outbox
from workers.supervisor import POLL_SECONDS, VERSION, Supervisor

_complain = Complaints(logging.getLogger(__name__))
SWEEP_SECONDS = 1.0
GARBAGE_SECONDS = 3600.0
UNREACHABLE_SECONDS = 5.0
"""Pause after trouble that is not the row's own."""


class Contact:
    """With the database: whether it has answered long enough, without a break, for silent workers to be dead ones.

    While it does not answer nobody can renew a lease, and who finds it back first would take everybody for dead.

    Args:
        gap: Seconds between two answers that make a break.
        settling: Seconds after a break within which everybody renews a lease.
    """

    def __init__(self, gap: float, settling: float) -> None:
        self._gap, self._settling = gap, settling
        self._last, self._settled = math.inf, -math.inf

    def broke(self) -> None:
        """It has not taken what was written, as when its disk is full: leases cannot have been renewed either."""
        self._last = -math.inf

    def answered(self) -> bool:
        """It has, just now; says whether leases that have run out were given up."""
        now = time.monotonic()
        if now > self._last + self._gap:
            self._settled = now + self._settling
        self._last = now
        return now >= self._settled


def sweep_now_and_then(supervisor: Supervisor) -> None:
    """Sweep until the supervisor is stopped."""
    zoo, stop, next_garbage = supervisor.zoo, supervisor.stop, 0.0
    lease = zoo.settings.lease_seconds
    contact = Contact(SWEEP_SECONDS + lease / 2, lease)  # after less than half a lease everybody still has theirs
    while not stop.is_set():
        try:
            with zoo.database.write() as session:
                clock.now(session)
                if contact.answered():
                    validation.sweep_validations(session, zoo.settings.max_attempts)
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
        except Exception as error:  # whatever it is, a worker that no longer sweeps would leave rows to nobody
            contact.broke()
            _complain("cannot sweep; trying again", error)
            stop.wait(UNREACHABLE_SECONDS)
        stop.wait(SWEEP_SECONDS)


def check_versions(supervisor: Supervisor) -> None:
    """See new versions through, one after another, until the supervisor is stopped."""

    def take() -> bool:
        with supervisor.zoo.database.write() as session:
            lease = validation.claim_validation(session, supervisor.name, supervisor.zoo.settings.lease_seconds)
        return lease is not None and supervisor.see_through(VERSION, lease)

    repeat(take, supervisor.stop)


def repeat(take: Callable[[], bool], stop: threading.Event) -> None:
    """Call `take` until `stop` is set, with a pause where it had nothing to do; trouble is waited out."""
    while not stop.is_set():
        try:
            pause = 0.0 if take() else POLL_SECONDS
        except Exception as error:  # whatever it is, a worker that takes nothing more would look alive
            _complain("cannot take or see through a row; trying again", error)
            pause = UNREACHABLE_SECONDS
        stop.wait(pause)
