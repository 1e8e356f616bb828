import multiprocessing
import sys
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import engine
from app.db.engine import Database
from app.errors import LeaseLost
from app.jobs import recovery, runs
from app.jobs import service as jobs
from app.jobs.tables import EventRow, JobRow
from app.models import service as models
from app.models import validation
from app.settings import MAX_ATTEMPTS
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.statements import counting

CLAIMERS, JOBS = 8, 40


def _claim_all(
    url: str, worker: str, start: "multiprocessing.synchronize.Event", taken: "multiprocessing.Queue[str]"
) -> None:
    database = Database(url)
    start.wait()
    while True:
        with database.write() as session:
            lease = runs.claim(session, worker)
        if lease is None:
            break
        taken.put(lease.id)
    database.close()


@pytest.mark.always
@pytest.mark.skipif(sys.platform == "win32", reason="the service runs on POSIX")
def test_eight_processes_claim_every_job_exactly_once(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        wanted = seeds.request(session, zoo)
        expected = sorted(jobs.submit(session, wanted).id for _ in range(JOBS))
    zoo.database.close()
    context = multiprocessing.get_context("fork")  # nothing but this test's own threads: none
    start, taken = context.Event(), context.Queue()
    url = zoo.settings.database_url
    claimers = [context.Process(target=_claim_all, args=(url, f"w{i}", start, taken)) for i in range(CLAIMERS)]
    for claimer in claimers:
        claimer.start()
    start.set()
    got = [taken.get(timeout=60) for _ in range(JOBS)]
    for claimer in claimers:
        claimer.join(60)
    assert [claimer.exitcode for claimer in claimers] == [0] * CLAIMERS
    assert sorted(got) == expected
    assert taken.empty()


def _migrate(url: str, start: "multiprocessing.synchronize.Event") -> None:
    start.wait()
    engine.migrate(Database(url))


def test_six_processes_migrate_a_new_database_at_once(empty_database_url: str) -> None:
    context = multiprocessing.get_context("fork")
    start, url = context.Event(), empty_database_url
    migrators = [context.Process(target=_migrate, args=(url, start)) for _ in range(6)]
    for migrator in migrators:
        migrator.start()
    start.set()
    for migrator in migrators:
        migrator.join(60)
    assert [migrator.exitcode for migrator in migrators] == [0] * 6
    database = Database(url)
    assert engine.outdated(database) is None
    database.close()


def test_a_claim_raises_the_token_and_the_oldest_job_goes_first(zoo: Zoo, session: Session) -> None:
    wanted = seeds.request(session, zoo)
    first, second = jobs.submit(session, wanted), jobs.submit(session, wanted)
    one, two = runs.claim(session, "a"), runs.claim(session, "b")
    assert one is not None
    assert two is not None
    assert (one.id, two.id, one.token) == (first.id, second.id, 1)
    assert runs.claim(session, "c") is None
    runs.release(session, one)
    again = runs.claim(session, "a")
    assert again is not None
    assert again.token == 2


def test_every_write_after_a_lost_lease_is_refused(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    old = runs.claim(session, "a")
    assert old is not None
    seeds.expire(session, job)
    assert recovery.sweep(session) == 1
    new = runs.claim(session, "a")  # the same worker's name does not help the old lease
    assert new is not None
    before = session.get_one(JobRow, job.id).last_seq
    for write in (
        lambda: runs.heartbeat(session, old),
        lambda: runs.record(session, old, stage="x", message="x", progress=0.5),
        lambda: runs.record_trial(
            session, old, stage="inserting", progress=0.5, target_position="a", source_position="b", round=0, score=1.0
        ),
        lambda: seeds.publish(session, zoo, old),
        lambda: runs.fail(session, old, {"code": "x", "detail": "x"}),
        lambda: runs.finish_cancel(session, old),
        lambda: runs.release(session, old),
    ):
        with pytest.raises(LeaseLost, match="token 1"):
            write()
    session.refresh(job)
    assert (job.state, job.last_seq, job.module) == ("running", before, None)
    assert runs.heartbeat(session, new) == "continue"


def test_a_heartbeat_prolongs_the_lease(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    lease = runs.claim(session, "a")
    assert lease is not None
    seeds.expire(session, job)
    runs.heartbeat(session, lease)
    assert recovery.sweep(session) == 0
    session.refresh(job)
    assert job.state == "running"


def test_the_sweeper_gives_a_job_three_attempts(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    states = []
    for _ in range(MAX_ATTEMPTS):
        assert runs.claim(session, "a") is not None
        seeds.expire(session, job)
        recovery.sweep(session)
        states.append(job.state)
    assert states == ["queued", "queued", "failed"]
    assert job.problem is not None
    assert job.problem["code"] == "attempts_exhausted"
    assert job.finished_at is not None
    assert runs.claim(session, "a") is None


@pytest.mark.parametrize("most", [1, 5])
def test_how_many_attempts_there_are_is_a_setting(zoo: Zoo, session: Session, most: int) -> None:
    job = seeds.queued(session, zoo)
    version = seeds.version(session, zoo, "bomb", status="validating")
    for number in range(most):
        assert (job.state, version.status) == ("queued", "validating")
        lease = runs.claim(session, "a")
        assert lease is not None
        if number % 2:
            recovery.crashed(session, lease, "its process died", most=most)
        validation.claim_validation(session, "a")
        seeds.expire(session, version)
        if not number % 2:
            seeds.expire(session, job)
        recovery.sweep(session, most)
        validation.sweep_validations(session, most)
    assert (job.state, version.status) == ("failed", "rejected")
    assert job.problem is not None
    assert f"got {most} attempts" in job.problem["detail"]


def test_a_cancelled_job_whose_worker_dies_is_cancelled(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    runs.claim(session, "a")
    assert jobs.cancel(session, job.id).state == "cancelling"
    seeds.expire(session, job)
    recovery.sweep(session)
    assert job.state == "cancelled"


def test_a_released_job_has_used_no_attempt(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    lease = runs.claim(session, "a")
    assert lease is not None
    runs.release(session, lease)
    assert (job.state, job.attempts, job.lease_worker) == ("queued", 0, None)


def test_a_version_that_kills_three_workers_is_rejected(zoo: Zoo, session: Session) -> None:
    version = seeds.version(session, zoo, "bomb", status="validating")
    for _ in range(MAX_ATTEMPTS):
        assert validation.claim_validation(session, "a") is not None
        assert validation.claim_validation(session, "b") is None
        seeds.expire(session, version)
        assert validation.sweep_validations(session) == 1
    assert version.status == "rejected"
    assert models.resolve(session, "bomb").problem == version.problem


def test_accepting_after_a_lost_lease_is_refused(zoo: Zoo, session: Session) -> None:
    version = seeds.version(session, zoo, "slow", status="validating")
    old = validation.claim_validation(session, "a")
    assert old is not None
    seeds.expire(session, version)
    validation.sweep_validations(session)
    with pytest.raises(LeaseLost):
        validation.accept_version(session, old, fingerprint="f", parameters=1, macs=1)
    assert version.status == "validating"


def test_events_are_numbered_without_gaps(zoo: Zoo, session: Session, tmp_path: Path) -> None:
    job = seeds.queued(session, zoo)
    lease = runs.claim(session, "a")
    assert lease is not None
    for step in range(5):
        runs.record(session, lease, stage="localizing", message=f"step {step}", progress=step / 5)
    seeds.publish(session, zoo, lease)
    rows = session.scalars(select(EventRow).where(EventRow.job_id == job.id).order_by(EventRow.seq)).all()
    assert [row.seq for row in rows] == list(range(1, 9))
    assert [row.state for row in rows] == ["queued", *["running"] * 6, "succeeded"]
    assert job.last_seq == 8


def test_a_heartbeat_is_one_statement_for_the_row_and_one_for_its_steps(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        seeds.queued(session, zoo)
        lease = runs.claim(session, "worker")
    assert lease is not None
    with counting(zoo) as sent, zoo.database.write() as session:
        runs.heartbeat(session, lease)
    assert [statement.split()[:2] for statement in sent if statement.startswith("UPDATE")] == [
        ["UPDATE", "jobs"],
        ["UPDATE", "steps"],
    ]
    assert not any(statement.startswith("SELECT") for statement in sent)
