"""A worker has the last word about a row, however long its child takes to stop, and goes on while there is work."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sqlalchemy import select

from app.db.leases import Lease
from app.errors import Misconfigured
from app.jobs import events, recovery, runs, steps
from app.jobs import service as jobs
from app.jobs.tables import StepRow
from app.zoo import Zoo
from tests.unit import seeds
from workers import exit_codes, runner_pool, supervisor
from workers.supervisor import JOB, Supervisor, device_of

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
                recovery.sweep(session)
            time.sleep(0.1)

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        self.exitcode = -9


def test_a_child_that_stops_late_is_not_taken_for_a_dead_worker(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    monkeypatch.setattr(runner_pool, "start", lambda *_: Deaf(zoo))
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 2.0 * LEASE_SECONDS)
    lease = _claimed(zoo)
    Supervisor(zoo, threading.Event()).run_row(JOB, lease)
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
    assert job.problem is not None
    assert (job.state, job.problem["code"], job.attempts) == ("failed", "deadline_exceeded", 0)


@pytest.mark.parametrize(("most", "state"), [(1, "failed"), (2, "queued")])
def test_the_settings_say_how_often_a_child_may_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, state: str
) -> None:
    zoo = seeds.new_zoo(tmp_path, max_attempts=most)
    dead = Deaf(zoo)
    dead.kill()
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    monkeypatch.setattr(runner_pool, "start", lambda *_: dead)
    lease = _claimed(zoo)
    Supervisor(zoo, threading.Event()).run_row(JOB, lease)
    with zoo.database.read() as session:
        assert jobs.get(session, lease.id).state == state
    zoo.close()


def test_a_job_that_has_no_room_is_given_back_with_that_reason(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Deaf(zoo)
    ended.exitcode = exit_codes.NO_SPACE
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    monkeypatch.setattr(runner_pool, "start", lambda *_: ended)
    lease = _claimed(zoo)
    assert Supervisor(zoo, threading.Event()).run_row(JOB, lease) is False
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
        assert (job.state, job.attempts, job.fruitless) == ("queued", 0, 0)
        assert "no room is left" in events.events_after(session, job.id, 0)[-1].message


def _claimed(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        jobs.submit(session, replace(seeds.request(session, zoo), max_seconds=1))
        lease = runs.claim(session, "worker", LEASE_SECONDS)
    assert lease is not None
    return lease


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the rows that were seen through; each ends at once."""
    seen: list[str] = []

    def run_row(self: Supervisor, kind: supervisor.Kind, lease: Lease) -> bool:
        assert not self.is_idle
        seen.append(lease.id)
        return len(seen) < 10

    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    monkeypatch.setattr(Supervisor, "run_row", run_row)
    return seen


def test_one_message_is_enough_for_all_that_waits(zoo: Zoo, seen: list[str]) -> None:
    with zoo.database.write() as session:
        wanted = seeds.request(session, zoo)
        queued = [jobs.submit(session, wanted).id for _ in range(4)]
        jobs.get(session, queued[1]).size = "large"
    small = zoo.settings.model_copy(update={"worker_sizes": ("small",)})
    told = Supervisor(replace(zoo, settings=small), threading.Event())
    told.work(JOB, queued[2])
    assert seen == [queued[2], queued[0], queued[3]], "the one that it was told of, then the oldest of its size"
    assert told.is_idle
    told.work(JOB, queued[2])
    assert len(seen) == 3


def test_a_worker_that_is_told_of_a_taken_job_takes_another(zoo: Zoo, seen: list[str]) -> None:
    with zoo.database.write() as session:
        wanted = seeds.request(session, zoo)
        queued = [jobs.submit(session, wanted).id for _ in range(2)]
        runs.claim(session, "other", job_id=queued[0])
    Supervisor(zoo, threading.Event()).work(JOB, queued[0])
    assert seen == [queued[1]]


def test_who_has_nothing_to_do_helps_with_any_shared_step(zoo: Zoo, seen: list[str]) -> None:
    with zoo.database.write() as session:
        jobs.submit(session, seeds.request(session, zoo))
        lease = runs.claim(session, "leader")
        assert lease is not None
        steps.share(session, lease, ["insert/a/b/0", "insert/a/b/1"])
        shared = [row.id for row in session.scalars(select(StepRow).order_by(StepRow.id))]
    Supervisor(zoo, threading.Event()).work(JOB, lease.id)
    assert seen == shared


def test_trouble_and_the_end_of_the_worker_end_its_round(zoo: Zoo, seen: list[str]) -> None:
    with zoo.database.write() as session:
        wanted = seeds.request(session, zoo)
        queued = [jobs.submit(session, wanted).id for _ in range(12)]
    stop = threading.Event()
    told = Supervisor(zoo, stop)
    told.work(JOB, queued[0])
    assert len(seen) == 10, "the tenth could not be worked on now"
    stop.set()
    told.work(JOB, queued[11])
    assert len(seen) == 10


def test_one_job_runs_on_a_device_and_a_further_message_claims_nothing(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with zoo.database.write() as session:
        wanted = seeds.request(session, zoo)
        queued = [jobs.submit(session, wanted).id for _ in range(3)]
    settings = zoo.settings.model_copy(update={"worker_device": "cuda", "slots": 3})
    worker = Supervisor(replace(zoo, settings=settings), threading.Event())
    assert "PNC_SLOTS is 3, and 2 jobs run at once" in caplog.text

    def start(kind: str, lease: Lease, environment: dict[str, str]) -> Deaf:
        seen.append((kind, environment["CUDA_VISIBLE_DEVICES"]))
        if len(seen) == 1:
            worker.run_row(supervisor.VERSION, lease)  # a version needs no device
            worker.work(JOB, queued[1])
        elif len(seen) == 3:
            worker.work(JOB, queued[2])  # a message for a third job, while both devices are in use
            assert len(seen) == 3
        ended = Deaf(zoo)
        ended.exitcode = 0
        return ended

    monkeypatch.setattr(runner_pool, "start", start)
    monkeypatch.setattr(Supervisor, "_update", lambda *_: None)
    worker.work(JOB, queued[0])
    assert seen == [("job", "0"), ("version", ""), ("job", "1"), ("job", "1")]
    assert worker.is_idle


def test_torch_decides_whether_there_is_a_device(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = zoo.settings.model_copy(update={"worker_device": "cuda"})
    with pytest.raises(Misconfigured, match="PNC_WORKER_DEVICE: expected a device that torch can use, got cuda"):
        device_of(settings, 0)
    assert [device_of(settings, 1), device_of(zoo.settings, 1), device_of(zoo.settings, 0)] == ["cuda", "cuda", "cpu"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert supervisor.accelerators(2) == ["GPU-a", "GPU-b"]
    assert supervisor.accelerators(1) == ["GPU-a"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert supervisor.accelerators(2) == ["0", "1"]


@pytest.mark.always
@pytest.mark.skipif(torch.cuda.is_available(), reason="for hosts whose torch has no CUDA")
def test_a_host_that_shows_a_device_to_a_torch_without_cuda_works_on_its_processor(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert Supervisor(zoo, threading.Event()).devices == ("any", "cpu")
