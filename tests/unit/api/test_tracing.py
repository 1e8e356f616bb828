"""A request is the beginning of a trace that its job goes on with."""

from pathlib import Path

import httpx
from opentelemetry.trace import SpanKind

from app.jobs import service as jobs
from app.settings import Settings
from tests.unit import seeds, traces
from tests.unit.inprocess import FakeServing, InProcess, running_app
from tests.unit.traces import parent_of, traceparent_of

ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_job_goes_on_with_the_trace_of_the_request_that_asked_for_it(tmp_path: Path) -> None:
    with traces.kept() as kept, running_app(Settings(data_dir=tmp_path), FakeServing()) as app:
        zoo = app.state.zoo
        with zoo.database.write() as session:
            wanted = seeds.request(session, zoo)
        body = {"target": "low", "source": "high", "dataset": wanted.dataset, "config": {"classes": ["7"]}}
        with InProcess(app) as transport, httpx.Client(base_url="http://localhost", transport=transport) as http:
            answer = http.post("/v1/cloning-jobs", json=body, headers={"traceparent": ELSEWHERE})
            http.get("/healthz")
        with zoo.database.read() as session:
            job = jobs.get(session, answer.json()["id"])
    (span,) = kept.spans
    assert (span.name, span.kind) == ("POST /v1/cloning-jobs", SpanKind.SERVER)
    assert parent_of(span) == ELSEWHERE.split("-")[2]
    assert job.traceparent == traceparent_of(span)
