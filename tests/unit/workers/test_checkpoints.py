"""A job's checkpoints: what a row names is there, whoever collects garbage meanwhile."""

from collections.abc import Callable

import pytest

from app.db.leases import Lease
from app.jobs import runs, steps
from app.jobs.tables import StepRow
from app.lifecycle import garbage
from app.zoo import Zoo
from pnc_core.method.checkpoints import State
from tests.unit import seeds
from tests.unit.workers.robbing import rob
from workers.checkpoints import StoredCheckpoints

STATE = State({"epochs": 1})


@pytest.fixture
def lease(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        seeds.queued(session, zoo)
        lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


@pytest.fixture
def checkpoints(zoo: Zoo, lease: Lease) -> StoredCheckpoints:
    return StoredCheckpoints(zoo, lease.id, lease, lambda: False)


def _save(zoo: Zoo, lease: Lease, checkpoints: StoredCheckpoints) -> None:
    checkpoints.save("screen", STATE)


def _finish(zoo: Zoo, lease: Lease, checkpoints: StoredCheckpoints) -> None:
    """As a helper does."""
    with zoo.database.write() as session:
        steps.share(session, lease, ["screen"])
        helping = steps.claim_shared(session, "helper", 60, session.query(StepRow).one().id)
    assert helping is not None
    checkpoints.finish(helping, STATE)


@pytest.mark.parametrize("put", [_save, _finish])
def test_a_checkpoint_that_garbage_took_before_its_row_is_put_again(
    zoo: Zoo, lease: Lease, checkpoints: StoredCheckpoints, put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rob(zoo, monkeypatch)
    put(zoo, lease, checkpoints)
    assert checkpoints.load("screen") == STATE


def test_a_running_job_s_checkpoint_is_no_garbage_and_the_one_before_it_is(
    zoo: Zoo, checkpoints: StoredCheckpoints
) -> None:
    checkpoints.save("screen", State({"epochs": 0}))
    checkpoints.save("screen", STATE)
    assert garbage.collect(zoo, object_seconds=-10) == 1
    assert checkpoints.load("screen") == STATE
