"""A worker's signs of life: a loop that hangs, a lease that is lost, and the answers to probes."""

import threading

import pytest

from workers.health.server import report
from workers.health.vitals import LOOP_SECONDS, Vitals

LEASE = 20.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vitals(clock: Clock) -> Vitals:
    return Vitals(LEASE, clock)


def test_an_idle_worker_is_well(vitals: Vitals) -> None:
    assert vitals.hanging() is vitals.losing() is None


def test_a_loop_without_a_round_hangs_until_its_next_round(vitals: Vitals, clock: Clock) -> None:
    vitals.note()
    clock.now += LOOP_SECONDS
    assert vitals.hanging() is None
    clock.now += 1
    assert threading.current_thread().name in str(vitals.hanging())
    vitals.note()
    assert vitals.hanging() is None


def test_a_loop_may_announce_a_long_round(vitals: Vitals, clock: Clock) -> None:
    vitals.note(3600)
    clock.now += 3600
    assert vitals.hanging() is None
    clock.now += 1
    assert vitals.hanging() is not None


def test_a_row_keeps_the_loop_alive_that_runs_it(vitals: Vitals, clock: Clock) -> None:
    vitals.note()
    with vitals.row("job_1") as seen:
        for _ in range(10):
            clock.now += LOOP_SECONDS / 2
            seen(True)
        assert vitals.hanging() is vitals.losing() is None


def test_a_lease_that_is_not_renewed_is_being_lost_but_needs_no_restart(vitals: Vitals, clock: Clock) -> None:
    with vitals.row("job_1") as seen:
        clock.now += LEASE + 1
        seen(False)
        assert "job_1" in str(vitals.losing())
        assert vitals.hanging() is None
        seen(True)
        assert vitals.losing() is None
        clock.now += LEASE + 1
    assert vitals.losing() is None  # an ended row has no lease


def test_a_supervision_that_stops_looking_hangs(vitals: Vitals, clock: Clock) -> None:
    with vitals.row("job_1"):
        clock.now += LOOP_SECONDS + 1
        assert "job_1" in str(vitals.hanging())


def test_a_worker_is_ready_once_its_loops_run(vitals: Vitals) -> None:
    assert [report(path, vitals)[0] for path in ("/healthz", "/readyz")] == [200, 503]
    vitals.note()
    assert report("/readyz", vitals) == (200, {"status": "ready"})


def test_liveness_and_readiness_differ(vitals: Vitals, clock: Clock) -> None:
    vitals.note(10 * LEASE)
    assert [report(path, vitals)[0] for path in ("/healthz", "/readyz", "/other")] == [200, 200, 404]
    with vitals.row("job_1") as seen:
        clock.now += LEASE + 1
        seen(False)
        assert [report(path, vitals)[0] for path in ("/healthz", "/readyz")] == [200, 503]
    vitals.note()
    clock.now += LOOP_SECONDS + 1
    assert [report(path, vitals)[0] for path in ("/healthz", "/readyz")] == [503, 503]
