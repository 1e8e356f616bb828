from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from app.db import clock
from app.db.leases import Lease
from app.db.notices import take_announced
from app.db.pages import Window
from app.errors import InvalidTransition, LeaseLost
from app.jobs import attempts, notifier, recovery, runs
from app.jobs import service as jobs
from app.jobs.tables import JobRow
from app.zoo import Zoo
from tests.unit import seeds


def _claim(session: Session) -> Lease:
    lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


def _outcomes(session: Session, job: JobRow) -> list[str | None]:
    session.flush()
    return [row.outcome for row in attempts.list_attempts(session, job.id, Window(50, None)).data]


def test_a_waiting_job_is_paused_at_once_and_not_taken(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    assert jobs.pause(session, job.id).state == "paused"
    assert jobs.pause(session, job.id).state == "paused"
    assert runs.claim(session, "worker") is None
    assert jobs.resume(session, job.id).state == "queued"
    assert jobs.resume(session, job.id).state == "queued"
    _claim(session)


def test_a_running_job_is_paused_by_its_worker_without_using_an_attempt(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    lease = _claim(session)
    assert jobs.pause(session, job.id).state == "pausing"
    assert runs.heartbeat(session, lease) == "pause"
    runs.finish_pause(session, lease)
    assert (job.state, job.attempts) == ("paused", 0)
    assert jobs.resume(session, job.id).state == "queued"
    seeds.publish(session, zoo, _claim(session))
    assert _outcomes(session, job) == ["paused", "succeeded"]


def test_a_pause_can_be_withdrawn(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    lease = _claim(session)
    jobs.pause(session, job.id)
    assert jobs.resume(session, job.id).state == "running"
    assert runs.heartbeat(session, lease) == "continue"
    jobs.pause(session, job.id)
    jobs.resume(session, job.id)
    runs.finish_pause(session, lease)  # the worker had stopped already
    assert job.state == "queued"


def test_a_paused_job_whose_version_is_checked_anew_waits_for_it(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    jobs.pause(session, job.id)
    job.target_version.status = "validating"
    assert jobs.resume(session, job.id).state == "validating"


def test_a_job_that_is_finished_while_it_is_to_be_paused_has_succeeded(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    lease = _claim(session)
    jobs.pause(session, job.id)
    seeds.publish(session, zoo, lease)
    assert job.state == "succeeded"
    with pytest.raises(InvalidTransition):
        jobs.pause(session, job.id)


def test_a_worker_that_dies_while_it_is_to_pause_leaves_a_paused_job(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    lease = _claim(session)
    jobs.pause(session, job.id)
    recovery.crashed(session, lease, "its process died")
    assert job.state == "paused"


@pytest.mark.parametrize(("ask", "state"), [(jobs.cancel, "cancelled"), (jobs.pause, "paused")])
def test_a_worker_that_does_not_stop_loses_the_job(session: Session, zoo: Zoo, ask, state: str) -> None:
    job = seeds.queued(session, zoo)
    lease = _claim(session)
    ask(session, job.id)
    recovery.sweep(session)
    assert job.state in ("cancelling", "pausing")
    job.asked_at = clock.now(session) - timedelta(seconds=recovery.STOP_SECONDS + 1)
    recovery.sweep(session)
    assert job.state == state
    with pytest.raises(LeaseLost):
        runs.heartbeat(session, lease)


def test_a_retry_is_a_new_job_that_asks_for_the_same(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    with pytest.raises(InvalidTransition, match="got one that is queued"):
        jobs.retry(session, job.id)
    jobs.cancel(session, job.id)
    again = jobs.retry(session, job.id)
    assert again.id != job.id
    assert (again.state, again.config["classes"]) == ("queued", ("7", "8"))


def test_a_job_that_runs_out_of_memory_twice_fails_and_the_second_time_it_is_large(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    assert job.size == "small"
    recovery.crashed(session, _claim(session), "its process ran out of memory", attempts.OUT_OF_MEMORY)
    assert (job.state, job.size) == ("queued", "large")
    recovery.crashed(session, _claim(session), "its process ran out of memory", attempts.OUT_OF_MEMORY)
    assert job.state == "failed"
    assert job.problem is not None
    assert job.problem["code"] == "out_of_memory"
    assert _outcomes(session, job) == ["out_of_memory", "out_of_memory"]


def test_a_postponed_job_rests_and_uses_no_attempt(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    runs.postpone(session, _claim(session), "the store cannot be reached")
    assert (job.state, job.attempts) == ("queued", 0)
    assert runs.claim(session, "worker") is None
    job.not_before = clock.now(session) - timedelta(seconds=1)
    session.flush()
    _claim(session)


def test_only_workers_with_the_device_take_a_job(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    job.device = "cuda"
    session.flush()
    assert runs.claim(session, "worker", devices=("any", "cpu")) is None
    assert runs.claim(session, "worker", job_id="job_0", devices=("any", "cuda")) is None
    assert runs.claim(session, "worker", job_id=job.id, devices=("any", "cuda")) is not None


def test_a_job_that_nobody_takes_is_announced_again(session: Session, zoo: Zoo) -> None:
    job = seeds.queued(session, zoo)
    assert [notice.id for notice in take_announced(session)] == [job.id]
    assert not notifier.announce_again(session, 60)
    job.announced_at = clock.now(session) - timedelta(seconds=61)
    session.flush()
    assert not notifier.announce_again(session, 60, devices=("cuda",)), "whoever is idle could not take it"
    assert not notifier.announce_again(session, 60, sizes=("large",))
    assert notifier.announce_again(session, 60)
    assert not notifier.announce_again(session, 60)
    assert [(notice.id, notice.queue) for notice in take_announced(session)] == [(job.id, "jobs.any.small")]
