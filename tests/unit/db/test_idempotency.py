from datetime import timedelta

import httpx
from sqlalchemy import update

from app.db import clock, idempotency
from app.db.tables import IdempotencyRow
from app.zoo import Zoo

KEY = {"Idempotency-Key": "k1"}


def _names(http: httpx.Client) -> list[str]:
    return [m["name"] for m in http.get("/v1/models").json()["data"]]


def test_a_repeat_gets_the_same_answer_and_does_nothing(http: httpx.Client) -> None:
    first = http.post("/v1/models", json={"name": "a"}, headers=KEY)
    again = http.post("/v1/models", json={"name": "a"}, headers=KEY)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert http.post("/v1/models", json={"name": "a"}).status_code == 409


def test_another_request_with_the_key_is_refused(http: httpx.Client) -> None:
    http.post("/v1/models", json={"name": "a"}, headers=KEY)
    for path, body in (("/v1/models", {"name": "b"}), ("/v1/uploads", {"bytes": 1, "sha256": "0" * 64})):
        answer = http.post(path, json=body, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert _names(http) == ["a"]


def test_a_failed_request_can_be_repeated_with_its_key(http: httpx.Client) -> None:
    http.post("/v1/models", json={"name": "a"})
    assert http.post("/v1/models", json={"name": "a"}, headers=KEY).status_code == 409
    assert http.post("/v1/models", json={"name": "b"}, headers=KEY).status_code == 201


def test_a_key_is_forgotten_after_a_day(http: httpx.Client, zoo: Zoo) -> None:
    http.post("/v1/models", json={"name": "a"}, headers=KEY)
    with zoo.database.write() as session:
        yesterday = clock.now(session) - timedelta(hours=25)
        session.execute(update(IdempotencyRow).values(created_at=yesterday))
    assert http.post("/v1/models", json={"name": "b"}, headers=KEY).status_code == 201
    with zoo.database.write() as session:
        idempotency.sweep_keys(session)
        assert session.get(IdempotencyRow, ("default", "k1")) is not None


def test_odd_keys_are_refused(http: httpx.Client) -> None:
    for key in ("", "x" * 129, "a\tb"):
        answer = http.post("/v1/models", json={"name": "a"}, headers={"Idempotency-Key": key})
        assert answer.json()["errors"][0]["code"] == "invalid_idempotency_key"
