"""The faults, each at a moment of somebody else's choosing; every one is healed before it returns."""

import random
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import redis
from sqlalchemy import select

from app.zoo.bell import JOB_TASK, CeleryBell, Ring, job_queue
from app.zoo.db import Database
from app.zoo.tables import JobRow
from tests.chaos.link import Link
from tests.services.processes import Process
from tests.stack import QUICK, Stack, answers

LEASE_SECONDS = float(QUICK["PNC_LEASE_SECONDS"])


class Faults:
    """What can be done to a stack.

    Args:
        stack: Running; its last worker is behind the link, if there is one.
        link: The last worker's.
        database: Of the stack, to read what is queued.
        dice: Decides whom it hits.
        relentless: A killed worker is started again and not waited for; one that is only starting is spared.
    """

    def __init__(
        self, stack: Stack, link: Link | None, database: Database, dice: random.Random, *, relentless: bool = False
    ) -> None:
        self._stack, self._link, self._database, self._dice = stack, link, database, dice
        self._relentless = relentless
        self.kinds: dict[str, Callable[[], bool | None]] = {
            "runner": self.kill_runner,
            "worker": self.kill_worker,
            "api": lambda: self._kill(self._stack.api),
            "redis": lambda: self._stack.services["redis"].restart(),
            "postgres": lambda: self._out("postgres"),
            "s3": lambda: self._out("s3"),
            "freeze": self.freeze_worker,
            "duplicate": self.ring_thrice,
            "lost": self.lose_messages,
        }
        if link is not None:
            self.kinds["link"] = self.cut_link

    def kill_runner(self) -> bool:
        """SIGKILL of a job's process; waits a little for one, and says whether there was one."""
        deadline = time.monotonic() + 5
        while not (found := self._stack.runners()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if found:
            with suppress(psutil.NoSuchProcess):
                self._dice.choice(found).kill()
        return bool(found)

    def kill_worker(self) -> bool:
        """SIGKILL of a worker alone: its runner must notice by itself. Says whether there was one."""
        ready = [worker for worker in self._stack.workers if self._stack.is_ready(worker)]
        if not ready:
            return False
        worker = self._dice.choice(ready)
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(worker.pid)
            process.kill()
            process.wait(10)
        self._stack.start_worker(worker, wait=not self._relentless)
        return True

    def freeze_worker(self) -> None:
        """SIGSTOP of a worker and its runner, past the lease; then they wake up and believe they have it."""
        worker = self._dice.choice(self._stack.workers)
        worker.pause()
        time.sleep(LEASE_SECONDS + 2)
        worker.resume()

    def ring_thrice(self) -> None:
        """Three messages more for every job that has not ended."""
        with self._database.read() as session:
            rows = session.scalars(select(JobRow).where(JobRow.state.in_(("queued", "running")))).all()
        rings = [Ring(JOB_TASK, row.id, job_queue(row.device, row.size)) for row in rows]
        CeleryBell(self._stack.environment["PNC_BROKER_URL"]).ring(rings * 3)

    def lose_messages(self) -> None:
        """All messages are gone; the broker lives on."""
        redis.Redis.from_url(self._stack.environment["PNC_BROKER_URL"]).flushall()

    def cut_link(self) -> None:
        """The worker on a network of its own is cut off past its lease, and comes back."""
        assert self._link is not None
        self._link.cut()
        time.sleep(LEASE_SECONDS + 2)
        self._link.mend()

    def _out(self, name: str) -> None:
        service = self._stack.services[name]
        service.kill()
        time.sleep(self._dice.uniform(0, 2))
        service.restart()

    def _kill(self, process: Process) -> None:
        process.kill()
        process.start()
        process.wait_until(lambda: answers(self._stack.url))
