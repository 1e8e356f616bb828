import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.db.leases import Lease
from app.errors import LeaseLost
from app.jobs import recovery, runs, steps
from app.jobs import service as jobs
from app.jobs.tables import JobRow, StepRow
from app.settings import MAX_ATTEMPTS
from app.zoo import Zoo
from tests.unit import seeds

NAMES = ["trial|1|2|a|b", "trial|1|2|c|d", "trial|1|2|e|f"]


@pytest.fixture
def lease(session: Session, zoo: Zoo) -> Lease:
    seeds.queued(session, zoo)
    lease = runs.claim(session, "leader")
    assert lease is not None
    return lease


def _ids(session: Session) -> dict[str, str]:
    return {row.name: row.id for row in session.scalars(select(StepRow))}


def test_a_step_that_is_kept_can_be_found_and_replaced(session: Session, zoo: Zoo, lease: Lease) -> None:
    first, second = (zoo.store.put([content]) for content in (b"one", b"two"))
    steps.keep(session, lease, "screen", first)
    steps.keep(session, lease, "screen", second)
    found = steps.find(session, lease.id, ["screen", "refine"])
    assert {name: row.digest for name, row in found.items()} == {"screen": second.digest}


def test_who_has_lost_the_job_keeps_and_shares_nothing(session: Session, zoo: Zoo, lease: Lease) -> None:
    seeds.expire(session, session.get_one(JobRow, lease.id))
    recovery.sweep(session)
    with pytest.raises(LeaseLost):
        steps.keep(session, lease, "screen", zoo.store.put([b"one"]))
    with pytest.raises(LeaseLost):
        steps.share(session, lease, NAMES)
    assert _ids(session) == {}


def test_every_shared_step_is_taken_once(session: Session, lease: Lease) -> None:
    steps.share(session, lease, NAMES)
    steps.share(session, lease, NAMES)
    ids = _ids(session)
    helped = steps.claim_shared(session, "helper", 60, ids[NAMES[1]])
    assert helped is not None
    assert steps.claim_shared(session, "another", 60, ids[NAMES[1]]) is None
    own = [steps.claim_own(session, lease) for _ in NAMES]
    assert [row[1] for row in own if row] == [NAMES[0], NAMES[2]]
    assert own[-1] is None


def test_a_finished_step_is_not_taken_again(session: Session, zoo: Zoo, lease: Lease) -> None:
    steps.share(session, lease, NAMES)
    ids = _ids(session)
    helped = steps.claim_shared(session, "helper", 60, ids[NAMES[0]])
    assert helped is not None
    steps.finish(session, helped, zoo.store.put([b"state"]))
    assert steps.claim_shared(session, "helper", 60, ids[NAMES[0]]) is None
    assert steps.find(session, lease.id, NAMES)[NAMES[0]].key is not None
    with pytest.raises(LeaseLost):
        steps.finish(session, helped, zoo.store.put([b"again"]))


def test_a_silent_helper_s_step_goes_back_to_the_process_that_runs_the_job(session: Session, lease: Lease) -> None:
    steps.share(session, lease, NAMES[:1])
    helped = steps.claim_shared(session, "helper", 60, _ids(session)[NAMES[0]])
    assert helped is not None
    seeds.expire(session, session.get_one(StepRow, helped.id))
    assert steps.sweep(session) == 1
    with pytest.raises(LeaseLost):
        steps.heartbeat(session, helped)
    assert steps.claim_shared(session, "helper", 60, helped.id) is None, "it has cost a life already"
    assert steps.claim_own(session, lease) is not None


def test_the_heartbeat_of_a_job_keeps_its_own_steps(session: Session, lease: Lease) -> None:
    steps.share(session, lease, NAMES[:1])
    taken = steps.claim_own(session, lease)
    assert taken is not None
    row = session.get_one(StepRow, taken[0].id)
    seeds.expire(session, row)
    runs.heartbeat(session, lease)
    session.refresh(row)
    assert row.lease_expires_at is not None
    assert row.lease_expires_at > clock.now(session)


def test_steps_of_a_job_that_does_not_run_are_not_taken(session: Session, lease: Lease) -> None:
    steps.share(session, lease, NAMES)
    jobs.cancel(session, lease.id)
    assert steps.claim_shared(session, "helper", 60, _ids(session)[NAMES[1]]) is None


def test_a_job_that_has_ended_has_no_steps(session: Session, zoo: Zoo, lease: Lease) -> None:
    steps.share(session, lease, NAMES)
    helped = steps.claim_shared(session, "helper", 60, _ids(session)[NAMES[1]])
    assert helped is not None
    seeds.publish(session, zoo, lease)
    assert _ids(session) == {}
    with pytest.raises(LeaseLost):
        steps.heartbeat(session, helped)


def test_attempts_that_get_further_do_not_count_against_the_job(session: Session, zoo: Zoo, lease: Lease) -> None:
    for number in range(2 * MAX_ATTEMPTS):
        steps.keep(session, lease, f"epoch {number}", zoo.store.put([b"x"]))
        recovery.crashed(session, lease, "its process died")
        again = runs.claim(session, "leader")
        assert again is not None
        lease = again
    assert session.get_one(JobRow, lease.id).attempts == 2 * MAX_ATTEMPTS
