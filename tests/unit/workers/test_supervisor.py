"""A worker has the last word about a row, however long its child takes to stop."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.zoo import jobs, runs
from app.zoo.leases import Lease
from app.zoo.zoo import Zoo
from tests.unit.zoo import seeds
from workers import nursery, supervisor
from workers.supervisor import JOB, Supervisor

LEASE_SECONDS = 2


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Zoo]:
    zoo = seeds.new_zoo(tmp_path, lease_seconds=LEASE_SECONDS, heartbeat_seconds=1)
    yield zoo
    zoo.close()


class Deaf:
    """A child that hears nothing but KILL, while another worker looks for leases that have run out."""

    def __init__(self, zoo: Zoo) -> None:
        self._zoo = zoo
        self.exitcode: int | None = None

    def join(self, seconds: float | None = None) -> None:
        until = time.monotonic() + (seconds or 0)
        while time.monotonic() < until:
            with self._zoo.database.write() as session:
                runs.sweep(session)
            time.sleep(0.1)

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        self.exitcode = -9


def test_a_child_that_stops_late_is_not_taken_for_a_dead_worker(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "open_nursery", lambda: None)
    monkeypatch.setattr(nursery, "start", lambda *_: Deaf(zoo))
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 2.0 * LEASE_SECONDS)
    lease = _claimed(zoo)
    Supervisor(zoo, threading.Event()).see_through(JOB, lease)
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
    assert job.problem is not None
    assert (job.state, job.problem["code"], job.attempts) == ("failed", "deadline_exceeded", 0)


def _claimed(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        jobs.submit(session, replace(seeds.request(session, zoo), max_seconds=1))
        lease = runs.claim(session, "worker", LEASE_SECONDS)
    assert lease is not None
    return lease
