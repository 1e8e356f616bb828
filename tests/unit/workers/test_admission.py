"""A job starts only where its memory fits; it waits for memory in use, and is refused where it never fits."""

import multiprocessing
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import torch

from app.db.leases import Lease
from app.errors import MemoryInUse, NotEnoughMemory
from app.jobs import attempts, events, runs
from app.jobs import service as jobs
from app.jobs.tables import JobRow
from app.process.resources import memory
from app.process.resources.memory import Room
from app.zoo import Zoo
from pnc_core.method.memory import Memory
from tests.unit import seeds
from workers import admission

GIB = 2**30
USED = 10**15
"""More than any process uses: the outstanding part of a claim is never 0."""


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    """The memory of the host; the test changes it."""
    found = [Room(8 * GIB, 6 * GIB)]
    monkeypatch.setattr(memory, "room", lambda: found[0])
    return found


def _needing(gib: float) -> Memory:
    return Memory(int(gib * GIB), 0)


@pytest.mark.usefixtures("room")
def test_a_job_that_fits_is_admitted_and_one_that_never_fits_is_refused_with_both_sizes(zoo: Zoo) -> None:
    with admission._reserve(zoo, _needing(4), anyway=False):
        pass
    with pytest.raises(NotEnoughMemory, match=r"needs about 9\.0 GiB of \d\.\d GiB; set a smaller batch_size") as error:
        admission._reserve(zoo, _needing(9), anyway=False)
    assert not isinstance(error.value, MemoryInUse)
    with admission._reserve(zoo, _needing(9), anyway=True):
        pass


def test_the_limit_of_a_job_counts(tmp_path: Path, room: list[Room]) -> None:
    zoo = seeds.new_zoo(tmp_path, job_memory_bytes=2 * GIB)
    with pytest.raises(NotEnoughMemory, match=r"needs about 3\.0 GiB of [01]\.\d GiB"):
        admission._reserve(zoo, _needing(3), anyway=False)
    zoo.close()


def test_memory_in_use_is_waited_for(zoo: Zoo, room: list[Room]) -> None:
    room[0] = Room(8 * GIB, 1 * GIB)
    with pytest.raises(MemoryInUse, match=r"needs about 4\.0 GiB, and 1\.0 GiB of \d\.\d GiB are free; it waits"):
        admission._reserve(zoo, _needing(4), anyway=False)


def _holds(zoo_dir: str, ready: object, leave: object) -> None:
    """A job of the same worker, in a process of its own, that has taken nothing of its memory yet."""
    memory.room = lambda: Room(8 * GIB, 6 * GIB)
    zoo = seeds.new_zoo(Path(zoo_dir))
    with admission._reserve(zoo, _needing(4), anyway=False):
        ready.set()  # type: ignore[attr-defined]
        leave.wait(60)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("room")
def test_memory_that_another_job_will_take_is_not_free_until_that_job_ends(zoo: Zoo) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_holds, args=(str(zoo.settings.data_dir), ready, leave))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(MemoryInUse, match="are free; it waits"):
            admission._reserve(zoo, _needing(3), anyway=False)
        with admission._reserve(zoo, _needing(1), anyway=False):
            pass
    finally:
        leave.set()
        other.join()
    with admission._reserve(zoo, _needing(3), anyway=False):
        pass


def test_a_claim_counts_only_what_its_process_has_not_taken(zoo: Zoo) -> None:
    used = psutil.Process().memory_info().rss
    assert admission._Claim(psutil.Process().pid, 0).outstanding == 0
    assert abs(admission._Claim(psutil.Process().pid, 2 * used).outstanding - used) < used / 2
    assert admission._Claim(2**30, USED).outstanding == 0, "a process that has ended needs nothing"


def test_a_gpu_is_checked_before_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotEnoughMemory, match=r"the memory of the GPU, got one that needs about 9\.0 GiB of 8\.0 GiB"):
        admission._check("the GPU", 9 * GIB, Room(8 * GIB, GIB), anyway=False)


@pytest.fixture
def lease(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        jobs.submit(session, seeds.request(session, zoo))
        lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


def _claimed_again(zoo: Zoo) -> Lease | None:
    with zoo.database.write() as session:
        return runs.claim(session, "worker")


def test_a_job_that_waits_is_queued_again_later_and_uses_no_attempt(zoo: Zoo, lease: Lease) -> None:
    admission.decline(zoo, lease, MemoryInUse("expected free memory, got none"))
    assert _claimed_again(zoo) is None, "not at once"
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
        assert (job.state, job.attempts, job.size) == ("queued", 0, "small")
        assert "queued again after 30 s: expected free memory" in events.events_after(session, job.id, 0)[-1].message


def test_a_refused_job_waits_for_a_large_worker_and_fails_there_with_the_reason(zoo: Zoo, lease: Lease) -> None:
    admission.decline(zoo, lease, NotEnoughMemory("needs 9 GiB of 8 GiB"))
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
        assert (job.state, job.attempts, job.size) == ("queued", 0, "large")
    again = _claimed_again(zoo)
    assert again is not None
    admission.decline(zoo, again, NotEnoughMemory("needs 9 GiB of 8 GiB"))
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
        assert job.state == "failed"
        assert job.problem == {"code": "not_enough_memory", "detail": "needs 9 GiB of 8 GiB"}
        assert attempts.count(session, job, attempts.NOT_ENOUGH_MEMORY) == 2


def test_a_refused_job_that_was_to_stop_stops(zoo: Zoo, lease: Lease) -> None:
    with zoo.database.write() as session:
        jobs.cancel(session, lease.id)
    admission.decline(zoo, lease, NotEnoughMemory("needs 9 GiB of 8 GiB"))
    with zoo.database.read() as session:
        assert session.get_one(JobRow, lease.id).state == "cancelled"


def test_images_are_not_loaded_for_a_job_that_does_not_fit(
    zoo: Zoo, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import loading, runner

    network = torch.nn.Linear(1, 1), seeds.network()
    monkeypatch.setattr(loading, "load_version", lambda *_: network)
    monkeypatch.setattr(loading, "load_images", lambda *_, **__: pytest.fail("the images were loaded"))

    def refuse(*_: object, **__: object) -> ExitStack:
        raise NotEnoughMemory("needs 9 GiB of 8 GiB")

    monkeypatch.setattr(admission, "admit", refuse)
    runner.run_job(zoo, lease, lambda: False)
    with zoo.database.read() as session:
        assert jobs.get(session, lease.id).size == "large"
