"""The HTTP API of canaries."""

import httpx
import pytest

from app.deployments import service as deployments
from app.deployments.canary import service as canaries
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing

URL = "/v1/deployments/digits"


@pytest.fixture
def served(zoo: Zoo, http: httpx.Client) -> str:
    """A module for the target of a deployment."""
    with zoo.database.write() as session:
        module = seeds.module(session, zoo).id
        deployments.put(session, "digits", "low")
    return module


def test_the_routes_start_read_promote_and_end(http: httpx.Client, served: str) -> None:
    missing = http.get(f"{URL}/canary")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    started = http.put(f"{URL}/canary", json={"modules": [served], "share": 0.5})
    assert (started.status_code, started.headers["etag"]) == (200, '"2"')
    canary = started.json()["canary"]
    assert (canary["modules"], canary["share"], canary["mode"]) == ([served], 0.5, "canary")
    assert started.json()["desired"]["modules"] == []
    assert canary["counts"]["agreed"] == 0
    assert canary["counts"]["mean_logit_difference"] is None
    assert http.get(f"{URL}/canary").json() == http.get(URL).json()["canary"] == canary
    newest, first = http.get(f"{URL}/revisions").json()["data"]
    assert first["canary"] is None
    assert newest["canary"] == {"modules": [served], "share": 0.5, "mode": "canary"}
    promoted = http.post(f"{URL}/canary/promote")
    assert (promoted.status_code, promoted.json()["canary"]) == (200, None)
    assert promoted.json()["desired"]["modules"] == [served]
    assert http.delete(f"{URL}/canary").json()["generation"] == 3
    http.put(f"{URL}/canary", json={"modules": [], "share": 1})
    assert http.delete(f"{URL}/canary").json()["canary"] is None


@pytest.mark.parametrize("share", [-0.1, 1.1, "Infinity", None])
def test_a_share_is_a_number_from_0_to_1(http: httpx.Client, served: str, share: object) -> None:
    answer = http.put(f"{URL}/canary", json={"modules": [served], "share": share})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert http.get(URL).json()["generation"] == 1


def test_a_refused_canary_is_taken_back(http: httpx.Client, serving: FakeServing, served: str) -> None:
    serving.refusal = {"status": 422, "code": "no_effect", "detail": "the module changes nothing"}
    answer = http.put(f"{URL}/canary", json={"modules": [served], "share": 0.5})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_effect")
    assert http.get(URL).json()["canary"] is None


def test_counts_are_totals_with_the_mean_difference(http: httpx.Client, zoo: Zoo, served: str) -> None:
    started = http.put(f"{URL}/canary", json={"modules": [served], "share": 1, "mode": "shadow"}).json()
    for _ in range(2):
        with zoo.database.write() as session:
            canaries.count(session, {started["canary"]["id"]: {"agreed": 2, "differed": 1, "logit_difference": 1.5}})
    counts = http.get(f"{URL}/canary").json()["counts"]
    assert (counts["agreed"], counts["differed"], counts["mean_logit_difference"]) == (4, 2, 0.5)
    changed = http.put(f"{URL}/canary", json={"modules": [served], "share": 0.1, "mode": "canary"}).json()
    assert changed["canary"]["counts"] == counts
    assert changed["generation"] == started["generation"] + 1
