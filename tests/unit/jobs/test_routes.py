import json
import threading
import time
from dataclasses import asdict
from typing import Any

import httpx
import pytest

from app.db.leases import Lease
from app.jobs import runs
from app.jobs import service as jobs
from app.jobs.streams import watching
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def body(zoo: Zoo) -> dict[str, Any]:
    """A job that makes sense."""
    with zoo.database.write() as session:
        return asdict(seeds.request(session, zoo))


def _claim(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        lease = runs.claim(session, "w")
    assert lease is not None
    return lease


def _messages(text: str) -> list[tuple[str, str, Any]]:
    """Event, id and data of every message; comments are pings."""
    messages = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            messages.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return messages


def test_a_job_from_submission_to_module(http: httpx.Client, zoo: Zoo, body: dict[str, Any]) -> None:
    created = http.post("/v1/cloning-jobs", json=body)
    url = created.headers["location"]
    assert (created.status_code, created.json()["state"]) == (201, "queued")
    assert (created.json()["target"], created.json()["source"]) == ("low@1", "high@1")
    lease = _claim(zoo)
    with zoo.database.write() as session:
        runs.record(session, lease, stage="searching", message="screen", progress=0.4, data={"positions": 5})
        runs.record_trial(
            session,
            lease,
            stage="searching",
            progress=0.4,
            target_position="layer1",
            source_position="layer2",
            round=0,
            score=0.9,
        )
    job = http.get(url).json()
    assert (job["state"], job["stage"], job["progress"]) == ("running", "searching", 0.4)
    (trial,) = http.get(f"{url}/trials").json()["data"]
    assert (trial["target_position"], trial["score"], trial["old"]) == ("layer1", 0.9, None)
    with zoo.database.write() as session:
        module = seeds.publish(session, zoo, lease)
    assert http.get(url).json()["module"] == module.id
    assert [j["id"] for j in http.get("/v1/cloning-jobs?state=succeeded").json()["data"]] == [job["id"]]
    assert http.get("/v1/cloning-jobs?state=failed").json()["data"] == []


def test_validate_says_all_and_keeps_nothing(http: httpx.Client, body: dict[str, Any]) -> None:
    good = http.post("/v1/cloning-jobs/validate", json=body).json()
    assert (good["valid"], good["problems"]) == (True, [])
    assert good["estimate"]["new_images"] == 20
    body["config"]["classes"] = ["cat", "0"]
    bad = http.post("/v1/cloning-jobs/validate", json=body).json()
    assert not bad["valid"]
    assert {"unknown_class", "class_in_target"} <= {p["code"] for p in bad["problems"]}
    refused = http.post("/v1/cloning-jobs", json=body)
    assert (refused.status_code, refused.json()["errors"]) == (422, bad["problems"])
    assert http.get("/v1/cloning-jobs").json()["data"] == []


def test_cancel_answers_by_what_it_did(http: httpx.Client, zoo: Zoo, body: dict[str, Any]) -> None:
    waiting, running = (http.post("/v1/cloning-jobs", json=body).headers["location"] for _ in range(2))
    lease = _claim(zoo)  # the older one
    assert http.post(f"{waiting}/cancel").json()["state"] == "cancelling"
    assert http.post(f"{waiting}/cancel").status_code == 202
    answer = http.post(f"{running}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    with zoo.database.write() as session:
        assert runs.heartbeat(session, lease) == "cancel"
        runs.finish_cancel(session, lease)
    assert http.post(f"{waiting}/cancel").json()["state"] == "cancelled"


def test_an_ended_job_cannot_be_cancelled(http: httpx.Client, zoo: Zoo, body: dict[str, Any]) -> None:
    url = http.post("/v1/cloning-jobs", json=body).headers["location"]
    lease = _claim(zoo)
    with zoo.database.write() as session:
        runs.fail(session, lease, {"code": "out_of_memory", "detail": "too large"})
    answer = http.post(f"{url}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_transition")
    assert http.get(url).json()["problem"]["code"] == "out_of_memory"


def test_the_stream_gives_all_events_and_an_end(http: httpx.Client, zoo: Zoo, body: dict[str, Any]) -> None:
    url = http.post("/v1/cloning-jobs", json=body).headers["location"]
    lease = _claim(zoo)
    with zoo.database.write() as session:
        for step in range(150):  # more than the stream reads at once
            runs.record(session, lease, stage="inserting", message=f"step {step}", progress=step / 150)
        seeds.publish(session, zoo, lease)
    answer = http.get(f"{url}/events/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    messages = _messages(answer.text)
    assert [m[1] for m in messages] == [*(str(n) for n in range(1, 154)), ""]
    assert messages[-1][0] == "end"
    assert messages[-1][2]["state"] == "succeeded"
    resumed = _messages(http.get(f"{url}/events/stream", headers={"Last-Event-ID": "151"}).text)
    assert resumed == messages[-3:]
    assert _messages(http.get(f"{url}/events/stream", headers={"Last-Event-ID": "153"}).text) == messages[-1:]
    paged = http.get(f"{url}/events?limit=100").json()
    rest = http.get(f"{url}/events?limit=100&after={paged['next_cursor']}").json()
    assert list(paged["data"] + rest["data"]) == [m[2] for m in messages[:-1]]


def test_the_stream_waits_for_what_is_to_come(
    http: httpx.Client, zoo: Zoo, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.02)
    url = http.post("/v1/cloning-jobs", json=body).headers["location"]

    def cancel_later() -> None:
        time.sleep(0.3)
        with zoo.database.write() as session:
            jobs.cancel(session, url.rpartition("/")[2])

    thread = threading.Thread(target=cancel_later)
    thread.start()
    messages = _messages(http.get(f"{url}/events/stream").text)
    thread.join()
    assert [(m[0], m[2]["state"]) for m in messages] == [
        ("state", "queued"),
        ("state", "cancelled"),
        ("end", "cancelled"),
    ]


def test_an_odd_last_event_id_is_refused(http: httpx.Client, body: dict[str, Any]) -> None:
    url = http.post("/v1/cloning-jobs", json=body).headers["location"]
    for odd in ("-1", "x", "99999999999"):
        answer = http.get(f"{url}/events/stream", headers={"Last-Event-ID": odd})
        assert answer.json()["errors"][0]["pointer"] == "header:last-event-id"
