"""Traces: what is sent, to whom, and that nothing happens where nobody wants them."""

import logging
import re
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.trace import StatusCode

from app.jobs import runs, steps
from app.jobs.tables import StepRow
from app.process import tracing
from app.process.logs import formatter
from app.settings import Settings
from app.zoo import Zoo
from pnc_core.errors import Cancelled
from tests.unit import seeds, traces
from tests.unit.traces import Traces, parent_of, traceparent_of

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def kept() -> Iterator[Traces]:
    with traces.kept() as kept:
        yield kept


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENDPOINT, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


def _line() -> str:
    record = logging.LogRecord("app", logging.INFO, "", 1, "said", (), None)
    return formatter(Settings(), "api").format(record)


def test_without_a_collector_nothing_is_traced() -> None:
    assert tracing.begin("api") is None
    with tracing.span("work", job_id="job_1"):
        tracing.note(outcome="done")
        assert (tracing.traceparent(), tracing.trace_id()) == (None, None)
        assert _line() == "INFO api: said"


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({ENDPOINT: "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_switch_it_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.is_wanted() is wanted


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({ENDPOINT: "collector:4317"}, f"{ENDPOINT}: expected a URL such as"),
        (
            {ENDPOINT: "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "expected http/protobuf, got 'grpc'",
        ),
    ],
)
def test_a_collector_that_cannot_be_used_is_named_and_the_service_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.begin("api") is None
    assert said in caplog.text
    with tracing.span("work"):
        assert not tracing.is_on()


def test_without_the_extra_the_service_goes_on_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracing.begin("api") is None
    assert "pip install 'pnc-zoo[otel]'" in caplog.text


def test_a_span_goes_on_from_elsewhere_and_those_within_from_it(kept: Traces) -> None:
    with tracing.span("outer", parent=ELSEWHERE, job_id="job_1", nothing=None):
        assert tracing.trace_id() == "0af7651916cd43dd8448eb211c80319c"
        assert _line() == f"INFO api: said [trace_id={tracing.trace_id()}]"
        with tracing.span("inner"):
            pass
        tracing.note(outcome="done")
    outer = kept.one("outer")
    assert parent_of(outer) == "b7ad6b7169203331"
    assert dict(outer.attributes or {}) == {"pnc.job_id": "job_1", "pnc.outcome": "done"}
    assert parent_of(kept.one("inner")) == traceparent_of(outer).split("-")[2]
    assert tracing.trace_id() is None


def test_a_damaged_parent_begins_a_trace_of_its_own(kept: Traces) -> None:
    with tracing.span("work", parent="00-nonsense"):
        pass
    assert parent_of(kept.one("work")) is None


def test_an_error_marks_its_span_and_being_stopped_does_not(kept: Traces) -> None:
    with pytest.raises(ValueError, match="bad"), tracing.span("broken"):
        raise ValueError("bad")
    with pytest.raises(Cancelled), tracing.span("stopped"):
        raise Cancelled("the job was cancelled")
    assert [kept.one(name).status.status_code for name in ("broken", "stopped")] == [StatusCode.ERROR, StatusCode.UNSET]


def test_the_process_is_named_unless_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, name in ((None, "pnc-test"), ("zoo", "zoo")):
        if given:
            monkeypatch.setenv("OTEL_SERVICE_NAME", given)
        with traces.kept() as kept, tracing.span("work"):
            pass
        resource = kept.one("work").resource.attributes
        assert (resource["service.name"], resource["pnc.process"]) == (name, "test")


def test_a_job_and_its_shared_steps_keep_where_their_trace_goes_on(zoo: Zoo, kept: Traces) -> None:
    with zoo.database.write() as session:
        with tracing.span("request"):
            job = seeds.queued(session, zoo)
        lease = runs.claim(session, "worker")
        assert lease is not None
        with tracing.span("sharing", parent=job.traceparent):
            steps.share(session, lease, ["trial|1", "trial|2"])
        found = {row.traceparent for row in session.query(StepRow)}
    assert job.traceparent == traceparent_of(kept.one("request"))
    assert found == {traceparent_of(kept.one("sharing"))}


def test_a_job_that_nobody_traces_keeps_none(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        assert seeds.queued(session, zoo).traceparent is None


def test_the_end_does_not_wait_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setattr(tracing, "END_SECONDS", 0.2)
    assert tracing.begin("api") is not None
    with tracing.span("work"):
        assert re.fullmatch("[0-9a-f]{32}", tracing.trace_id() or "")
    tracing.end()
    assert not tracing.is_on()
