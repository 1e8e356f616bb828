"""What a worker does about a row is a span of the trace that the row belongs to."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.db.leases import Lease
from app.jobs import runs, steps
from app.jobs.tables import StepRow
from app.process import tracing
from app.zoo import Zoo
from tests.unit import seeds, traces
from tests.unit.traces import Traces, parent_of, traceparent_of
from workers import runner_pool
from workers.supervisor import JOB, STEP, Supervisor


class Ended:
    """A child that has done its work."""

    exitcode = 0

    def join(self, seconds: float | None = None) -> None:
        pass


Child = Callable[[Lease], None]


@pytest.fixture
def kept() -> Iterator[Traces]:
    with traces.kept() as kept:
        yield kept


@pytest.fixture
def run_row(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Sees a lease through with a child that does what a test says; returns the child's variables."""

    def see(kind: Any, lease: Lease, work: Child) -> dict[str, str]:
        seen: dict[str, str] = {}

        def start(_: str, lease: Lease, environment: dict[str, str]) -> Ended:
            seen.update(environment)
            work(lease)
            return Ended()

        monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
        monkeypatch.setattr(runner_pool, "start", start)
        Supervisor(zoo, threading.Event()).run_row(kind, lease)
        return seen

    return see


def _claimed(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        with tracing.span("request"):
            seeds.queued(session, zoo)
        lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


def test_an_attempt_is_a_span_with_its_outcome_and_its_child_goes_on_from_there(
    zoo: Zoo, kept: Traces, run_row: Callable[..., dict[str, str]]
) -> None:
    lease = _claimed(zoo)

    def work(lease: Lease) -> None:
        with zoo.database.write() as session:
            runs.fail(session, lease, {"code": "config_error", "detail": "expected a, got b"})

    variables = run_row(JOB, lease, work)
    attempt = kept.one("attempt")
    assert parent_of(attempt) == traceparent_of(kept.one("request")).split("-")[2]
    assert variables["TRACEPARENT"] == traceparent_of(attempt)
    assert dict(attempt.attributes or {}) == {
        "pnc.job_id": lease.id,
        "pnc.attempt": 1,
        "pnc.worker": "worker",
        "pnc.outcome": "config_error",
    }


def test_a_helper_s_work_belongs_to_what_it_was_shared_in(
    zoo: Zoo, kept: Traces, run_row: Callable[..., dict[str, str]]
) -> None:
    lease = _claimed(zoo)
    with zoo.database.write() as session:
        with tracing.span("trials", parent=traceparent_of(kept.one("request"))):
            steps.share(session, lease, ["trial|1|0|a|b"])
        shared = session.query(StepRow).one().id
        helping = steps.claim_shared(session, "helper", 20, shared)
    assert helping is not None
    run_row(STEP, helping, lambda lease: None)
    spans = [kept.one(name) for name in ("request", "trials", "help")]
    assert [parent_of(span) for span in spans[1:]] == [traceparent_of(span).split("-")[2] for span in spans[:2]]
    assert dict(spans[2].attributes or {})["pnc.step"] == "trial|1|0|a|b"
    assert dict(spans[2].attributes or {})["pnc.job_id"] == lease.id


def test_without_traces_a_child_is_told_of_none(
    zoo: Zoo, run_row: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACEPARENT", raising=False)
    assert "TRACEPARENT" not in run_row(JOB, _claimed(zoo), lambda lease: None)
