import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.jobs import recovery, runs
from app.jobs import service as jobs
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.statements import counting


def _read(http: httpx.Client) -> dict[tuple[str, ...], float]:
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_an_empty_zoo_has_zeros(http: httpx.Client) -> None:
    found = _read(http)
    assert found["pnc_jobs", "queued"] == 0
    assert found[("pnc_trials_last_hour",)] == 0


def test_jobs_attempts_and_trials_are_counted(http: httpx.Client, zoo: Zoo) -> None:
    with zoo.database.write() as session:
        seeds.queued(session, zoo)
        lease = runs.claim(session, "worker")
        assert lease is not None
        trial = {"target_position": "a", "source_position": "b", "round": 1, "score": 0.5, "seconds": 2.5}
        runs.record_trial(session, lease, stage="inserting", progress=0.5, **trial)  # type: ignore[arg-type]
        recovery.crashed(session, lease, "its process died")
        waiting = jobs.retry(session, jobs.cancel(session, lease.id).id)
        assert waiting.state == "queued"
    found = _read(http)
    assert found["pnc_jobs", "queued"] == 1
    assert ("pnc_jobs", "cancelled") not in found, "jobs that have ended may be millions"
    assert found["pnc_queue_age_seconds", "any", "small"] >= 0
    assert found["pnc_attempts_ended_last_hour", "crashed"] == 1
    assert (found[("pnc_trials_last_hour",)], found[("pnc_trial_seconds_last_hour",)]) == (1, 2.5)


def test_counting_takes_a_handful_of_queries(http: httpx.Client, zoo: Zoo) -> None:
    with counting(zoo) as statements:
        http.get("/metrics")
    assert 0 < len([s for s in statements if s.startswith("SELECT")]) <= 7  # one for each kind of figure, and the clock
