"""The faults, each at a moment of somebody else's choosing; every one is healed before it returns."""

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
"""A network that every stack has."""
PATIENCE_SECONDS = 90
_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST('deployments' AS regclass)")


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
            "unreported": self.lose_a_report,
        }
        self.taken_away: list[str] = []
        """Deployments that nobody has deleted and that are gone, or are not served again."""
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
        notices = [Notice(JOB_TASK, row.id, job_queue(row.device, row.size)) for row in rows]
        CeleryNotifier(self._stack.environment["PNC_BROKER_URL"]).send(notices * 3)

    def lose_messages(self) -> None:
        """All messages are gone; the broker lives on."""
        redis.Redis.from_url(self._stack.environment["PNC_BROKER_URL"]).flushall()

    def lose_a_report(self) -> None:
        """Two faults that pass, on one deployment: the database goes away while serving reports that it has begun to
        serve it, and serving starts again while the store is away.
        """
        name = f"live-{new_id('dep')[-8:]}"
        postgres, store, serving = self._stack.services["postgres"], self._stack.services["s3"], self._stack.serving
        with self._reports_held_back(name):
            postgres.kill()
        serving.kill()
        postgres.restart()
        with self._table_locked("ACCESS EXCLUSIVE"):  # it opens the store, and cannot read yet what it shall serve
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
        """A new deployment that serving has begun to serve, while its report waits for the table."""
        with self._database.write() as session:
            deployments.put(session, name, TARGET)
            locked = self._table_locked("EXCLUSIVE")
            # It comes second, behind this transaction and before serving, which has not read of the deployment yet.
            taking = threading.Thread(target=locked.__enter__)
            taking.start()
            assert _until(lambda: self._waiters() > 0)
        taking.join()
        assert _until(lambda: self._waiters() > 0)
        yield
        with suppress(SQLAlchemyError):  # what held it back died with the database
            locked.__exit__(None, None, None)

    @contextmanager
    def _table_locked(self, mode: str) -> Iterator[None]:
        with self._database.engine.connect() as connection, connection.begin():
            connection.execute(text(f"LOCK TABLE deployments IN {mode} MODE"))
            yield

    def _waiters(self) -> int:
        """Transactions that wait for the table of deployments."""
        with self._database.engine.connect() as connection:
            return connection.scalar(_WAITING) or 0

    def _serving_lives(self) -> bool:
        with suppress(httpx.TransportError):
            url = self._stack.environment["PNC_SERVING_URL"]
            return httpx.get(f"{url}/healthz", timeout=5, trust_env=False).status_code == 200
        return False

    def _is_tried(self, name: str) -> bool:
        """Whether serving has found the store away, or the deployment is gone."""
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


def _until(happens: Callable[[], bool]) -> bool:
    """Wait for it; False: it did not happen in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(SQLAlchemyError):
            if happens():
                return True
        time.sleep(0.05)
    return False
