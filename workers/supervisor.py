"""Sees one leased row through: a fresh child process does the work, this one keeps the lease alive.

It holds no work in memory: killed at any moment, its lease runs out and another worker takes the row back. A child
is a process of its own, so that it can always be killed and its memory returns.
"""

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.leases import Lease
from app.errors import LeaseLost, Misconfigured
from app.jobs import attempts, runs, steps
from app.jobs.tables import JobRow
from app.models import validation
from app.process.lifeline import child_environment
from app.process.troubles import Complaints
from app.settings import Settings
from app.zoo import Zoo
from workers import exit_codes, job_spans, runner_pool

log = logging.getLogger(__name__)
_complain = Complaints(log)
POLL_SECONDS = 0.3
GRACE_SECONDS = 5.0
"""How long a child may take to stop when asked; then it is killed."""
Word = Callable[[Session, Lease], None]
"""A last word about a leased row."""


_OPENING = ("app.store.s3", "app.store.s3_inbox", "psycopg", "sqlalchemy.dialects.postgresql.psycopg")
"""What opening a cluster's zoo imports, where it is one: half a second of every child's processor time."""


class Crashed(Protocol):
    """Says that the process of a leased row has died."""

    def __call__(self, session: Session, lease: Lease, reason: str, code: str, most: int) -> None:
        """One attempt of `most` is used."""


class Postpone(Protocol):
    """Says that the process of a leased row could not reach what it needs."""

    def __call__(self, session: Session, lease: Lease, reason: str) -> None:
        """No attempt is used."""


@dataclass(frozen=True)
class Kind:
    """One kind of row and what a worker may say about it."""

    name: str
    heartbeat: Callable[[Session, Lease], str | None]
    release: Word
    postpone: Postpone
    crashed: Crashed


VERSION = Kind(
    "version",
    validation.heartbeat_validation,
    validation.release_validation,
    lambda session, lease, reason: validation.release_validation(session, lease),
    lambda session, lease, reason, code, most: validation.crashed_validation(session, lease, reason, most),
)
STEP = Kind(
    "step",
    steps.heartbeat,
    steps.release,
    lambda session, lease, reason: steps.release(session, lease),
    lambda session, lease, reason, code, most: steps.crashed(session, lease),
)
JOB = Kind("job", runs.heartbeat, runs.release, runs.postpone, runs.crashed)
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_STOPPED: dict[str, Word] = {"cancel": runs.finish_cancel, "pause": runs.finish_pause}


class Supervisor:
    """Runs leased rows in child processes.

    Args:
        zoo: The open zoo.
        stop: Once set, rows are given back.
    """

    def __init__(self, zoo: Zoo, stop: threading.Event) -> None:
        self.zoo, self.stop = zoo, stop
        self._lock, self._at_work = threading.Lock(), 0
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        runner_pool.preload(*(module for module in _OPENING if module in sys.modules))
        usable = runner_pool.open_runner_pool()
        self.device = device_of(zoo.settings, usable)
        self._accelerators: queue.SimpleQueue[str] = queue.SimpleQueue()
        # As many places as slots: a row that waits for one after it was taken would fall silent, and lose its lease.
        names = accelerators(usable) if usable else [""]  # a worker without any takes none
        for place in range(max(len(names), zoo.settings.slots)):
            self._accelerators.put(names[place % len(names)])

    @property
    def devices(self) -> tuple[str, ...]:
        """What jobs may ask for to be run here."""
        return ("any", self.device)

    @property
    def is_idle(self) -> bool:
        """Whether it could take one more row."""
        return self._at_work < self.zoo.settings.slots

    def work(self, kind: Kind, row_id: str) -> None:
        """Take the row that a message names, then whatever else is to be had, until nothing is.

        Messages only wake: a worker that waited for one between two rows would stand still for most of a second,
        which is what reading the next one takes.

        Args:
            kind: `JOB` or `STEP`.
            row_id: Taken first, if it is still to be had.
        """
        with self._lock:
            self._at_work += 1
        try:
            taken = self._take(kind, row_id) or self._take_next()
            while taken is not None and self.see_through(*taken):
                taken = self._take_next()
        finally:
            with self._lock:
                self._at_work -= 1

    def _take_next(self) -> tuple[Kind, Lease] | None:
        """The oldest job, or, when none waits, the oldest step that somebody shares."""
        return self._take(JOB) or self._take(STEP)

    def _take(self, kind: Kind, row_id: str | None = None) -> tuple[Kind, Lease] | None:
        if self.stop.is_set():
            return None
        settings = self.zoo.settings
        worker = self.name, settings.lease_seconds
        with self.zoo.database.write() as session:
            if kind is JOB:
                sizes = settings.worker_sizes
                lease = runs.claim(session, *worker, job_id=row_id, devices=self.devices, sizes=sizes)
            else:
                lease = steps.claim_shared(session, *worker, row_id, devices=self.devices)
        return None if lease is None else (kind, lease)

    def see_through(self, kind: Kind, lease: Lease) -> bool:
        """Work on a row until it is ended or given back; False: it could not be worked on now."""
        with job_spans.attempt(self.zoo, lease) as variables:
            return self._see_through(kind, lease, variables)

    def _see_through(self, kind: Kind, lease: Lease, variables: dict[str, str]) -> bool:
        log.info("%s %s: taken", kind.name, lease.id, extra=_about(lease))
        killed = exit_codes.killed_for_memory()
        with self._placed(kind, variables) as environment:
            child = runner_pool.start(kind.name, lease, environment)
            try:
                code = self._supervise(kind, lease, child)
            finally:
                _kill(child)
        if code in exit_codes.PASSING:
            self._say(partial(kind.postpone, reason=exit_codes.PASSING[code]), lease)
            return False
        if code is not None:
            full = exit_codes.was_out_of_memory(code, killed)
            outcome = attempts.OUT_OF_MEMORY if full else attempts.CRASHED
            # A child that has ended its row has given up the lease, and there is nothing to say.
            reason, most = exit_codes.reason(code, out_of_memory=full), self.zoo.settings.max_attempts
            self._say(partial(kind.crashed, reason=reason, code=outcome, most=most), lease)
        return True

    @contextmanager
    def _placed(self, kind: Kind, variables: dict[str, str]) -> Iterator[dict[str, str]]:
        """The environment of a child, which sees one accelerator at most; versions are judged beside jobs, without."""
        settings = {**self.zoo.settings.environment(), **variables}
        if self.device == "cpu" or kind is VERSION:
            yield child_environment({**settings, _VISIBLE: "", "PNC_WORKER_DEVICE": "cpu"})
            return
        name = self._accelerators.get()
        try:
            yield child_environment({**settings, _VISIBLE: name, "PNC_WORKER_DEVICE": "cuda"})
        finally:
            self._accelerators.put(name)

    def _supervise(self, kind: Kind, lease: Lease, child: BaseProcess) -> int | None:
        """Keep the lease alive until the child ends (its exit code), or its row is ended or given back (None)."""
        beat = self.zoo.settings.heartbeat_seconds
        began = next_beat = time.monotonic()
        limit = self._limit(kind, lease)
        while not _ended(child):
            now = time.monotonic()
            if self.stop.is_set():
                self._stop(kind, lease, child, kind.release)
                return None
            if limit is not None and now > began + limit:
                self._stop(kind, lease, child, partial(runs.fail, problem=_too_long(limit)))
                return None
            if now < next_beat:
                continue
            next_beat = now + beat
            order = self._heartbeat(kind, lease)
            if order in _STOPPED:
                self._stop(kind, lease, child, _STOPPED[order])
                return None
            if order == "lost":
                # A child that ends its row gives up the lease a moment before it exits.
                if not _ended(child, GRACE_SECONDS) or child.exitcode != 0:
                    log.warning(
                        "%s %s: the lease is lost; its process is ended", kind.name, lease.id, extra=_about(lease)
                    )
                return None
        return child.exitcode

    def _limit(self, kind: Kind, lease: Lease) -> int | None:
        if kind is not JOB:
            return None
        try:
            with self.zoo.database.read() as session:
                return session.scalar(select(JobRow.max_seconds).where(JobRow.id == lease.id))
        except SQLAlchemyError as error:
            _complain(f"{lease.id}: its time limit is not known", error)
            return None

    def _stop(self, kind: Kind, lease: Lease, child: BaseProcess, last: Word) -> None:
        """Ask a child to stop, wait a little, then kill it; the lease is kept meanwhile, for the last word."""
        child.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            self._heartbeat(kind, lease)
            if _ended(child, min(self.zoo.settings.heartbeat_seconds, GRACE_SECONDS)):
                break
        _kill(child)
        self._say(last, lease)

    def _heartbeat(self, kind: Kind, lease: Lease) -> str | None:
        try:
            with self.zoo.database.write() as session:
                return kind.heartbeat(session, lease)
        except LeaseLost:
            return "lost"
        except SQLAlchemyError as error:
            _complain(f"{kind.name} {lease.id}: no heartbeat; trying again while the lease lasts", error)
            return None

    def _say(self, what: Word, lease: Lease) -> None:
        """Write a last word, unless the child has ended the row by itself."""
        try:
            with self.zoo.database.write() as session:
                what(session, lease)
        except LeaseLost:
            log.debug("%s: ended by its own process", lease.id)
        except SQLAlchemyError as error:
            _complain(f"{lease.id}: cannot be given back; its lease will run out", error)
        else:
            log.info("%s: given back or ended", lease.id, extra=_about(lease))


def _about(lease: Lease) -> dict[str, str]:
    return {"job_id": lease.id} if lease.id.startswith("job_") else {}


def device_of(settings: Settings, usable: int) -> str:
    """`cpu` or `cuda`.

    Args:
        settings: What is wanted.
        usable: How many accelerators torch can use.

    Raises:
        Misconfigured: CUDA is asked for where torch has none.
    """
    if settings.worker_device == "cuda" and not usable:
        raise Misconfigured(
            f"PNC_WORKER_DEVICE: expected a device that torch can use, got cuda with none; look at {_VISIBLE}, at the "
            "driver and at the build of torch, or set it to auto or cpu"
        )
    if settings.worker_device != "auto":
        return settings.worker_device
    return "cuda" if usable else "cpu"


def accelerators(usable: int) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` calls the accelerators that torch can use."""
    given = os.environ.get(_VISIBLE)
    names = [name.strip() for name in given.split(",") if name.strip()] if given is not None else []
    return (names or [str(number) for number in range(usable)])[:usable]


def _ended(child: BaseProcess, seconds: float = POLL_SECONDS) -> bool:
    child.join(seconds)
    return child.exitcode is not None


def _kill(child: BaseProcess) -> None:
    if child.exitcode is None:
        child.kill()
        child.join()


def _too_long(seconds: int) -> dict[str, Any]:
    detail = f"expected an attempt to end within max_seconds ({seconds} s), got a longer one; submit it with more"
    return {"code": attempts.DEADLINE, "detail": detail}
