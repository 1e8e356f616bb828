"""The faults that a chaos test causes. Each method repairs its fault before it returns."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import redis
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from app.db.engine import Database
from app.db.ids import new_id
from app.db.notices import Notice
from app.deployments import replicas
from app.deployments import service as deployments
from app.errors import NotFound
from app.jobs.notifier import JOB_TASK, CeleryNotifier, job_queue
from app.jobs.tables import JobRow
from tests.chaos.link import Link
from tests.services.processes import Process
from tests.stack import QUICK, Stack, answers

LEASE_SECONDS = float(QUICK["PNC_LEASE_SECONDS"])
TARGET = "digits-low"
"""A model that every stack has."""
PATIENCE_SECONDS = 90
_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST('deployments' AS regclass)")


class Faults:
    """Faults of a stack, by kind.

    Args:
        stack: The running stack; if there is a link, the last worker is behind it.
        link: Network link of the last worker.
        database: The stack's database.
        dice: Chooses the affected process.
        relentless: Do not wait until a restarted worker is ready. A worker that is not ready is not killed.
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
            "unreported": self.lose_a_report,
        }
        self.taken_away: list[str] = []
        """Deployments that disappeared without a deletion, or are not served again."""
        if link is not None:
            self.kinds["link"] = self.cut_link

    def kill_runner(self) -> bool:
        """Kill a job's process; waits some seconds for one. Returns whether there was one."""
        deadline = time.monotonic() + 5
        while not (found := self._stack.runners()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if found:
            with suppress(psutil.NoSuchProcess):
                self._dice.choice(found).kill()
        return bool(found)

    def kill_worker(self) -> bool:
        """Kill a worker without its runner, which must notice it. Returns whether there was a ready worker."""
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
        """Stop a worker and its runner until their lease has expired, then continue them with the old lease."""
        worker = self._dice.choice(self._stack.workers)
        worker.pause()
        time.sleep(LEASE_SECONDS + 2)
        worker.resume()

    def ring_thrice(self) -> None:
        """Send three further messages for every open job."""
        with self._database.read() as session:
            rows = session.scalars(select(JobRow).where(JobRow.state.in_(("queued", "running")))).all()
        notices = [Notice(JOB_TASK, row.id, job_queue(row.device, row.size)) for row in rows]
        CeleryNotifier(self._stack.environment["PNC_BROKER_URL"]).send(notices * 3)

    def lose_messages(self) -> None:
        """Delete all messages in the broker."""
        redis.Redis.from_url(self._stack.environment["PNC_BROKER_URL"]).flushall()

    def lose_a_report(self) -> None:
        """Two temporary faults on one deployment: the database stops while serving reports that the deployment is
        served,
        and serving restarts while the store is down.
        """
        name = f"live-{new_id('dep')[-8:]}"
        postgres, store, serving = self._stack.services["postgres"], self._stack.services["s3"], self._stack.serving
        with self._reports_held_back(name):
            postgres.kill()
        serving.kill()
        postgres.restart()
        with self._table_locked("ACCESS EXCLUSIVE"):  # serving opens the store, but cannot read the deployments yet
            serving.start()
            serving.wait_until(self._serving_lives)
            store.kill()
        _until(lambda: self._is_tried(name))
        store.restart()
        if not _until(lambda: self._is_served(name)):
            self.taken_away.append(name)
        with suppress(NotFound), self._database.write() as session:
            deployments.delete(session, name)

    @contextmanager
    def _reports_held_back(self, name: str) -> Iterator[None]:
        """Create a deployment that serving starts to serve, while the lock on the table delays its report."""
        with self._database.write() as session:
            deployments.put(session, name, TARGET)
            locked = self._table_locked("EXCLUSIVE")
            # The lock queues behind this transaction and before serving, which has not read the deployment yet.
            taking = threading.Thread(target=locked.__enter__)
            taking.start()
            assert _until(lambda: self._waiters() > 0)
        taking.join()
        assert _until(lambda: self._waiters() > 0)
        yield
        with suppress(SQLAlchemyError):  # the database's death has released the lock
            locked.__exit__(None, None, None)

    @contextmanager
    def _table_locked(self, mode: str) -> Iterator[None]:
        with self._database.engine.connect() as connection, connection.begin():
            connection.execute(text(f"LOCK TABLE deployments IN {mode} MODE"))
            yield

    def _waiters(self) -> int:
        """Number of transactions that wait for a lock on the table of deployments."""
        with self._database.engine.connect() as connection:
            return connection.scalar(_WAITING) or 0

    def _serving_lives(self) -> bool:
        with suppress(httpx.TransportError):
            url = self._stack.environment["PNC_SERVING_URL"]
            return httpx.get(f"{url}/healthz", timeout=5, trust_env=False).status_code == 200
        return False

    def _is_tried(self, name: str) -> bool:
        """Whether serving has tried the deployment, or the deployment is missing."""
        with self._database.read() as session:
            try:
                deployments.get(session, name)
            except NotFound:
                return True
            return any(one is not None for one in replicas.observations(session, name).values())

    def _is_served(self, name: str) -> bool:
        with suppress(NotFound), self._database.read() as session:
            row = deployments.get(session, name)
            return row.observed_generation == row.generation == 1 and row.observed_problem is None
        return False

    def cut_link(self) -> None:
        """Cut the link of the last worker until its lease has expired, then restore the link."""
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


def _until(happens: Callable[[], bool]) -> bool:
    """Wait until `happens` returns true. Returns false after `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(SQLAlchemyError):
            if happens():
                return True
        time.sleep(0.05)
    return False
