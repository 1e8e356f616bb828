from datetime import timedelta

import httpx

from app.webhooks import outbox
from app.webhooks.outbox import Reception, RetryPolicy
from app.zoo import Zoo

URL = "https://hooks.example/pnc"


def _create(http: httpx.Client, **body: object) -> dict[str, str]:
    answer = http.post("/v1/webhooks", json={"url": URL, **body})
    assert answer.status_code == 201, answer.text
    created: dict[str, str] = answer.json()
    assert answer.headers["location"] == f"/v1/webhooks/{created['id']}"
    return created


def test_the_secret_is_shown_once(http: httpx.Client) -> None:
    made = _create(http, events=["job.failed"])
    assert made["secret"].startswith("whsec_")
    path = f"/v1/webhooks/{made['id']}"
    for answer in (http.get(path), http.get("/v1/webhooks"), http.patch(path, json={"enabled": False})):
        assert answer.status_code == 200
        assert "whsec_" not in answer.text
    assert http.post(f"{path}/rotate").json()["secret"] != made["secret"]


def test_what_makes_no_sense_is_refused_with_a_reason(http: httpx.Client) -> None:
    for body, pointer in (
        ({"url": "http://169.254.169.254/"}, "/url"),
        ({"url": "ftp://hooks.example"}, "/url"),
        ({"url": URL, "events": ["job.nothing"]}, "/events/0"),
        ({"url": URL, "secret": "mine"}, "/secret"),
        ({}, "/url"),
    ):
        answer = http.post("/v1/webhooks", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert http.get("/v1/webhooks").json()["data"] == []
    assert http.get("/v1/webhooks/whk_none").status_code == 404
    assert http.post("/v1/webhooks/whk_none/test").status_code == 404


def test_a_delivery_is_seen_from_waiting_to_failed_and_sent_again(http: httpx.Client, zoo: Zoo) -> None:
    path = f"/v1/webhooks/{_create(http)['id']}"
    sent = http.post(f"{path}/test")
    assert (sent.status_code, sent.json()["state"]) == (202, "waiting")
    with zoo.database.write() as session:
        taken = outbox.claim(session, "sender")
        assert taken is not None
        outbox.settle(
            session,
            taken[0],
            Reception(410, "gone", "expected 2xx, got 410"),
            RetryPolicy(timedelta(seconds=5), timedelta(days=3)),
        )
    (seen,) = http.get(f"{path}/deliveries", params={"state": "failed"}).json()["data"]
    assert (seen["id"], seen["status"], seen["answer"]) == (sent.json()["id"], 410, "gone")
    assert http.get(f"{path}/deliveries", params={"state": "waiting"}).json()["data"] == []
    again = f"{path}/deliveries/{seen['id']}/redeliver"
    assert http.post(again).status_code == 409
    assert "410" in http.get(path).json()["problem"]
    assert http.patch(path, json={"enabled": True}).json()["problem"] is None
    assert http.post(again).json()["state"] == "waiting"
    assert http.delete(path).status_code == 204
    assert http.get(f"{path}/deliveries").status_code == 404


def test_messages_are_counted(http: httpx.Client) -> None:
    http.post(f"/v1/webhooks/{_create(http)['id']}/test")
    lines = http.get("/metrics").text.splitlines()
    assert 'pnc_webhook_deliveries{state="waiting"} 1.0' in lines
    assert 'pnc_webhook_deliveries{state="failed"} 0.0' in lines
    assert any(line.startswith("pnc_webhook_overdue_seconds") for line in lines)
