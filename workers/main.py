"""The worker process: claims rows, runs each in a child process, keeps their leases alive.

    python -m workers.main

It holds no work in memory: killed at any moment, its lease runs out and another
worker takes the row back. On TERM it gives its row back at once.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.zoo import garbage, runs, validation
from app.zoo.errors import LeaseLost
from app.zoo.leases import Lease
from app.zoo.lifeline import child_environment, end_with_parent
from app.zoo.logs import log_to_stderr
from app.zoo.settings import Settings
from app.zoo.zoo import Zoo, open_zoo

log = logging.getLogger(__name__)
POLL_SECONDS = 0.3
SWEEP_SECONDS = 1.0
GARBAGE_SECONDS = 3600.0
GRACE_SECONDS = 5.0
"""How long a child may take to stop when asked; then it is killed."""


class Crashed(Protocol):
    """Says that the process of a leased row has died."""

    def __call__(self, session: Session, lease: Lease, reason: str) -> None:
        """One attempt is used."""


@dataclass(frozen=True)
class Kind:
    """One kind of row and what a worker may say about it."""

    name: str
    claim: Callable[[Session, str, int], Lease | None]
    heartbeat: Callable[[Session, Lease], str | None]
    release: Callable[[Session, Lease], None]
    crashed: Crashed


VERSION = Kind(
    "version",
    validation.claim_validation,
    validation.heartbeat_validation,
    validation.release_validation,
    validation.crashed_validation,
)
JOB = Kind("job", runs.claim, runs.heartbeat, runs.release, runs.crashed)


class Worker:
    """Claims and supervises: one job at a time, and one version beside it.

    Args:
        zoo: The open zoo.
        stop: Set it to end the loops.
    """

    def __init__(self, zoo: Zoo, stop: threading.Event) -> None:
        self.zoo, self.stop = zoo, stop
        self.name = f"{socket.gethostname()}-{os.getpid()}"

    def run(self) -> None:
        """Work until `stop` is set."""
        loops = [threading.Thread(target=self._work, args=(kind,), name=kind.name) for kind in (VERSION, JOB)]
        for loop in loops:
            loop.start()
        log.info("worker %s is ready", self.name)
        self._sweep_now_and_then()
        for loop in loops:
            loop.join()

    def _work(self, kind: Kind) -> None:
        """See rows of one kind through; trouble with the database is waited out."""
        while not self.stop.is_set():
            try:
                took = self._take(kind)
            except SQLAlchemyError:
                log.exception("%s: cannot reach the database; trying again", kind.name)
                took = False
            if not took:
                self.stop.wait(POLL_SECONDS)

    def _sweep_now_and_then(self) -> None:
        next_garbage = 0.0
        while not self.stop.is_set():
            try:
                with self.zoo.database.write() as session:
                    validation.sweep_validations(session)
                    runs.sweep(session)
                if time.monotonic() >= next_garbage:
                    next_garbage = time.monotonic() + GARBAGE_SECONDS
                    garbage.collect(self.zoo)
            except (SQLAlchemyError, OSError):
                log.exception("cannot sweep; trying again")
            self.stop.wait(SWEEP_SECONDS)

    def _take(self, kind: Kind) -> bool:
        """Claim a row of this kind and see it through; False: there was none."""
        with self.zoo.database.write() as session:
            lease = kind.claim(session, self.name, self.zoo.settings.lease_seconds)
        if lease is None:
            return False
        log.info("%s %s: taken", kind.name, lease.id)
        child = _start(kind, lease, self.zoo.settings)
        try:
            self._supervise(kind, lease, child)
        finally:
            _kill(child)
        return True

    def _supervise(self, kind: Kind, lease: Lease, child: subprocess.Popen[bytes]) -> None:
        """Keep the lease alive until the child ends, the row is cancelled or lost, or the worker stops."""
        beat = self.zoo.settings.heartbeat_seconds
        next_beat = time.monotonic() + beat
        while not _ended(child):
            if self.stop.is_set():
                _stop(child)
                self._say(kind.release, lease)
                return
            if time.monotonic() < next_beat:
                continue
            next_beat = time.monotonic() + beat
            order = self._heartbeat(kind, lease)
            if order == "cancel":
                _stop(child)
                self._say(runs.finish_cancel, lease)
                return
            if order == "lost":
                # A child that ends its row gives up the lease a moment before it exits.
                if not _ended(child, GRACE_SECONDS) or child.returncode != 0:
                    log.warning("%s %s: the lease is lost; its process is ended", kind.name, lease.id)
                return
        # A child that has ended its row has given up the lease, and there is nothing to say.
        self._say(partial(kind.crashed, reason=_reason(child.returncode)), lease)

    def _heartbeat(self, kind: Kind, lease: Lease) -> str | None:
        try:
            with self.zoo.database.write() as session:
                return kind.heartbeat(session, lease)
        except LeaseLost:
            return "lost"
        except SQLAlchemyError:
            log.exception("%s %s: no heartbeat; trying again while the lease lasts", kind.name, lease.id)
            return None

    def _say(self, what: Callable[[Session, Lease], None], lease: Lease) -> None:
        """Write a last word, unless the child has ended the row by itself."""
        try:
            with self.zoo.database.write() as session:
                what(session, lease)
        except LeaseLost:
            log.debug("%s: ended by its own process", lease.id)
        else:
            log.info("%s: given back or ended", lease.id)


def _start(kind: Kind, lease: Lease, settings: Settings) -> subprocess.Popen[bytes]:
    environment = child_environment(settings.environment())
    child = subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "workers.runner", kind.name], stdin=subprocess.PIPE, env=environment
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(asdict(lease)).encode())
    child.stdin.close()
    return child


def _ended(child: subprocess.Popen[bytes], seconds: float = POLL_SECONDS) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask, wait a little, then kill."""
    child.terminate()
    if not _ended(child, GRACE_SECONDS):
        _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
        child.wait()


def _reason(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for using too much memory"
    if code == 0:
        return "its process ended without a result"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"


def main() -> None:
    """Entry of the worker process."""
    end_with_parent()
    settings = Settings()
    log_to_stderr(settings, "worker")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    zoo = open_zoo(settings)
    try:
        Worker(zoo, stop).run()
    finally:
        zoo.close()


if __name__ == "__main__":
    main()
