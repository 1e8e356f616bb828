"""Supervises leased rows: a new child process does the work, and this process renews the lease.

No result is held in memory: if this process is killed, its lease expires and another worker recovers the row. The work
is in a child process, which can be killed at any time and whose memory is then free.
"""

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.compositions import runs as compositions
from app.datasets import inspections
from app.db.leases import Lease
from app.errors import LeaseLost, Misconfigured
from app.imports import runs as imports
from app.jobs import attempts, recovery, runs, steps
from app.jobs.tables import JobRow
from app.jobs.wakeups import WakeUps
from app.models import checks, validation
from app.process.lifeline import child_environment
from app.process.troubles import Complaints
from app.settings import Settings
from app.zoo import Zoo
from workers import exit_codes, job_spans, runner_pool
from workers.health.vitals import Vitals

log = logging.getLogger(__name__)
_complain = Complaints(log)
POLL_SECONDS = 0.3
GRACE_SECONDS = 5.0
"""Time for a child to stop after SIGTERM; then it is killed."""
RowUpdate = Callable[[Session, Lease], None]
"""The last update of a leased row, which also ends the lease."""


_OPTIONAL_IMPORTS = ("app.store.s3", "app.store.s3_inbox", "psycopg", "sqlalchemy.dialects.postgresql.psycopg")
"""Modules that opening a cluster's zoo imports. Preloading saves every child half a second of processor time."""


class Crashed(Protocol):
    """Records that the process of a leased row has crashed."""

    def __call__(self, session: Session, lease: Lease, reason: str, code: str, most: int) -> None:
        """Count one of at most `most` attempts as used."""


class Postpone(Protocol):
    """Records that the process of a leased row could not reach the database, the store or a disk with free space."""

    def __call__(self, session: Session, lease: Lease, reason: str) -> None:
        """Release the row until later; no attempt is used."""


@dataclass(frozen=True)
class Kind:
    """One kind of row, with the updates that a worker may write to it."""

    name: str
    heartbeat: Callable[[Session, Lease], str | None]
    release: RowUpdate
    postpone: Postpone
    crashed: Crashed
    stopped: Mapping[str, RowUpdate] = field(default_factory=dict)
    """The last update of a row whose child was stopped, by the request that the heartbeat returned."""


VERSION = Kind(
    "version",
    validation.heartbeat_validation,
    validation.release_validation,
    lambda session, lease, reason: validation.release_validation(session, lease),
    lambda session, lease, reason, code, most: validation.crashed_validation(session, lease, reason, most),
)
CHECK = Kind(
    "check",
    validation.heartbeat_validation,
    validation.release_validation,
    lambda session, lease, reason: validation.release_validation(session, lease),
    lambda session, lease, reason, code, most: checks.crashed(session, lease, reason),
)
STEP = Kind(
    "step",
    steps.heartbeat,
    steps.release,
    lambda session, lease, reason: steps.release(session, lease),
    lambda session, lease, reason, code, most: steps.crashed(session, lease),
)
JOB = Kind(
    "job",
    runs.heartbeat,
    runs.release,
    runs.postpone,
    recovery.crashed,
    {"cancel": runs.finish_cancel, "pause": runs.finish_pause},
)
IMPORT = Kind(
    "import",
    imports.heartbeat,
    imports.release,
    imports.postpone,
    imports.crashed,
    {"cancel": imports.finish_cancel},
)
INSPECTION = Kind(
    "inspection",
    inspections.heartbeat,
    inspections.release,
    lambda session, lease, reason: inspections.release(session, lease),
    lambda session, lease, reason, code, most: inspections.crashed(session, lease, reason, most),
    {"cancel": inspections.release},
)
COMPOSITION = Kind(
    "composition",
    compositions.heartbeat,
    compositions.release,
    compositions.postpone,
    compositions.crashed,
    {"cancel": compositions.finish_cancel},
)
ON_PROCESSORS = (VERSION, CHECK, IMPORT, INSPECTION, COMPOSITION)
"""Kinds whose children need no accelerator."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
FAILED = "failed"
"""Result of a heartbeat that did not reach the database. No row asks for this."""


class Supervisor:
    """Runs leased rows in child processes.

    Args:
        zoo: The open zoo.
        stop: Once set, running rows are released.
    """

    def __init__(self, zoo: Zoo, stop: threading.Event) -> None:
        self.zoo, self.stop = zoo, stop
        self.vitals = Vitals(zoo.settings.lease_seconds)
        self.wake_ups = WakeUps(zoo.settings.broker_url) if zoo.settings.broker_url else None
        """Wake-ups of idle loops by Redis; None: the loops poll the database."""
        self._lock, self._at_work = threading.Lock(), 0
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        runner_pool.preload(*(module for module in _OPTIONAL_IMPORTS if module in sys.modules))
        usable = runner_pool.open_runner_pool()
        self.device = device_of(zoo.settings, usable)
        self._accelerators: queue.SimpleQueue[str] = queue.SimpleQueue()
        names = accelerators(usable) if self.device == "cuda" else []
        for name in names:
            self._accelerators.put(name)
        self._most = min(zoo.settings.slots, len(names) or zoo.settings.slots)
        """Number of rows that run at once: one for each accelerator at most. A claimed row that waited for an
        accelerator would send no heartbeats and lose its lease."""
        if self._most < zoo.settings.slots:
            log.warning("PNC_SLOTS is %d, and %d jobs run at once: one for each GPU", zoo.settings.slots, self._most)

    @property
    def devices(self) -> tuple[str, ...]:
        """Values of a job's device with which the job can run on this worker."""
        return ("any", self.device)

    @property
    def is_idle(self) -> bool:
        """Whether the worker can claim another row."""
        return self._at_work < self._most

    def has_turn(self, work: str, seconds: float) -> bool:
        """Whether this worker must do a piece of work that one worker of the cluster does every so many seconds."""
        return self.wake_ups is None or self.wake_ups.has_turn(work, seconds)

    def work(self, kind: Kind, row_id: str) -> None:
        """Run the row that a message names, then other waiting rows until there are none.

        The worker does not wait for a message between two rows, because receiving one takes most of a second. If all
        accelerators are in use, nothing is claimed: the work of one of them claims the row when it has ended its own.

        Args:
            kind: `JOB` or `STEP`.
            row_id: The first row to claim, if it is still available.
        """
        with self._lock:
            if not self.is_idle:
                return
            self._at_work += 1
        try:
            claimed = self._claim(kind, row_id) or self._claim_next()
            while claimed is not None and self.run_row(*claimed):
                claimed = self._claim_next()
        finally:
            with self._lock:
                self._at_work -= 1

    def _claim_next(self) -> tuple[Kind, Lease] | None:
        """Claim the oldest waiting job, or without one the oldest shared step."""
        return self._claim(JOB) or self._claim(STEP)

    def _claim(self, kind: Kind, row_id: str | None = None) -> tuple[Kind, Lease] | None:
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

    def run_row(self, kind: Kind, lease: Lease) -> bool:
        """Run a row until it ends or is released. Returns false if the row was postponed."""
        with job_spans.attempt(self.zoo, lease) as variables:
            return self._run_in_child(kind, lease, variables)

    def _run_in_child(self, kind: Kind, lease: Lease, variables: dict[str, str]) -> bool:
        log.info("%s %s: claimed", kind.name, lease.id, extra=_about(lease))
        killed = exit_codes.killed_for_memory()
        with self._child_variables(kind, variables) as environment:
            child = runner_pool.start(kind.name, lease, environment)
            try:
                with self.vitals.row(lease.id) as seen:
                    code = self._supervise(kind, lease, child, seen)
            finally:
                _kill(child)
        if code in exit_codes.TEMPORARY:
            self._update(partial(kind.postpone, reason=exit_codes.TEMPORARY[code]), lease)
            return False
        if code is not None:
            no_memory = exit_codes.was_out_of_memory(code, killed)
            outcome = attempts.OUT_OF_MEMORY if no_memory else attempts.CRASHED
            # If the child has ended its row, it has given up the lease, and this update has no effect.
            reason, most = exit_codes.reason(code, out_of_memory=no_memory), self.zoo.settings.max_attempts
            self._update(partial(kind.crashed, reason=reason, code=outcome, most=most), lease)
        return True

    @contextmanager
    def _child_variables(self, kind: Kind, variables: dict[str, str]) -> Iterator[dict[str, str]]:
        """The environment of a child, which sees at most one accelerator. Only jobs and steps need one."""
        settings = {**self.zoo.settings.environment(), **variables}
        if self.device == "cpu" or kind in ON_PROCESSORS:
            yield child_environment({**settings, _VISIBLE: "", "PNC_WORKER_DEVICE": "cpu"})
            return
        name = self._accelerators.get()
        try:
            yield child_environment({**settings, _VISIBLE: name, "PNC_WORKER_DEVICE": "cuda"})
        finally:
            self._accelerators.put(name)

    def _supervise(self, kind: Kind, lease: Lease, child: BaseProcess, seen: Callable[[bool], None]) -> int | None:
        """Renew the lease until the child ends. Returns its exit code, or None if the row was ended or released
        here.
        """
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
                seen(False)
                continue
            next_beat = now + beat
            request = self._heartbeat(kind, lease)
            seen(request != FAILED)
            if request is not None and request in kind.stopped:
                self._stop(kind, lease, child, kind.stopped[request])
                return None
            if request == "lost":
                # A child that ends its row gives up the lease shortly before it exits.
                if not _ended(child, GRACE_SECONDS) or child.exitcode != 0:
                    log.warning(
                        "%s %s: the lease is lost; its process is killed", kind.name, lease.id, extra=_about(lease)
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
            _complain(f"{lease.id}: its time limit cannot be read", error)
            return None

    def _stop(self, kind: Kind, lease: Lease, child: BaseProcess, update: RowUpdate) -> None:
        """Terminate a child, kill it after `GRACE_SECONDS`, then update its row; the lease is renewed until then."""
        child.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            self._heartbeat(kind, lease)
            if _ended(child, min(self.zoo.settings.heartbeat_seconds, GRACE_SECONDS)):
                break
        _kill(child)
        self._update(update, lease)

    def _heartbeat(self, kind: Kind, lease: Lease) -> str | None:
        try:
            with self.zoo.database.write() as session:
                return kind.heartbeat(session, lease)
        except LeaseLost:
            return "lost"
        except SQLAlchemyError as error:
            _complain(f"{kind.name} {lease.id}: the heartbeat failed; trying again until the lease expires", error)
            return FAILED

    def _update(self, update: RowUpdate, lease: Lease) -> None:
        """Write the last update of a row, unless the child has ended the row itself."""
        try:
            with self.zoo.database.write() as session:
                update(session, lease)
        except LeaseLost:
            log.debug("%s: ended by its own process", lease.id)
        except SQLAlchemyError as error:
            _complain(f"{lease.id}: cannot be released; its lease will expire", error)
        else:
            log.info("%s: released or ended", lease.id, extra=_about(lease))


def _about(lease: Lease) -> dict[str, str]:
    return {"job_id": lease.id} if lease.id.startswith("job_") else {}


def device_of(settings: Settings, usable: int) -> str:
    """The worker's device: `cpu` or `cuda`.

    Args:
        settings: Their `worker_device` may be `auto`.
        usable: Number of accelerators that torch can use.

    Raises:
        Misconfigured: the settings ask for CUDA, and torch can use no accelerator.
    """
    if settings.worker_device == "cuda" and not usable:
        raise Misconfigured(
            f"PNC_WORKER_DEVICE: expected a device that torch can use, got cuda with none; check {_VISIBLE}, the "
            "driver and the build of torch, or set auto or cpu"
        )
    if settings.worker_device != "auto":
        return settings.worker_device
    return "cuda" if usable else "cpu"


def accelerators(usable: int) -> list[str]:
    """Names of the usable accelerators, as `CUDA_VISIBLE_DEVICES` names them."""
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
    detail = f"expected an attempt to end within max_seconds ({seconds} s), got a longer one; raise max_seconds"
    return {"code": attempts.DEADLINE, "detail": detail}
