from datetime import timedelta

import pytest

from app.db import clock
from app.deployments import replicas
from app.deployments.replicas import Observation
from app.deployments.tables import ReplicaRow
from app.zoo import Zoo


def _report(zoo: Zoo, replica: str, **generations: int) -> None:
    with zoo.database.write() as session:
        replicas.report(session, replica, {name: Observation(g) for name, g in generations.items()})


def _observations(zoo: Zoo, deployment: str) -> dict[str, Observation | None]:
    with zoo.database.read() as session:
        return replicas.observations(session, deployment)


def _age(zoo: Zoo, replica: str, seconds: float) -> None:
    with zoo.database.write() as session:
        session.get_one(ReplicaRow, replica).reported_at = clock.now(session) - timedelta(seconds=seconds)


def test_every_replica_says_what_it_serves(zoo: Zoo) -> None:
    _report(zoo, "rep_1", digits=3)
    _report(zoo, "rep_2", digits=2, letters=1)
    assert _observations(zoo, "digits") == {"rep_1": Observation(3), "rep_2": Observation(2)}
    assert _observations(zoo, "letters") == {"rep_1": None, "rep_2": Observation(1)}


def test_a_report_replaces_the_one_before(zoo: Zoo) -> None:
    _report(zoo, "rep_1", digits=3, letters=1)
    with zoo.database.write() as session:
        replicas.report(session, "rep_1", {"digits": Observation(4, {"code": "bundle_damaged", "detail": "cut off"})})
    assert _observations(zoo, "digits") == {"rep_1": Observation(4, {"code": "bundle_damaged", "detail": "cut off"})}
    assert _observations(zoo, "letters") == {"rep_1": None}


@pytest.mark.parametrize("seconds", [replicas.SILENT_SECONDS + 1, 3600])
def test_a_silent_replica_is_not_counted_and_goes_with_the_next_report(zoo: Zoo, seconds: float) -> None:
    _report(zoo, "rep_1", digits=3)
    _age(zoo, "rep_1", seconds)
    assert _observations(zoo, "digits") == {}
    _report(zoo, "rep_2", digits=3)
    with zoo.database.read() as session:
        assert session.get(ReplicaRow, "rep_1") is None


def test_a_replica_that_reports_in_time_stays(zoo: Zoo) -> None:
    _report(zoo, "rep_1", digits=3)
    _age(zoo, "rep_1", replicas.SILENT_SECONDS / 2)
    _report(zoo, "rep_2", digits=3)
    assert set(_observations(zoo, "digits")) == {"rep_1", "rep_2"}


def test_a_replica_that_ends_leaves(zoo: Zoo) -> None:
    _report(zoo, "rep_1", digits=3)
    with zoo.database.write() as session:
        replicas.leave(session, "rep_1")
    assert _observations(zoo, "digits") == {}
