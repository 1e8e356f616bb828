import threading
import time
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from app.deployments import replicas
from app.deployments.replicas import Observation
from app.modules.tables import ModuleRow
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing
from tests.unit.statements import counting

URL = "/v1/deployments/digits"


@pytest.fixture
def module(zoo: Zoo) -> ModuleRow:
    """A module for the model `low`."""
    with zoo.database.write() as session:
        return seeds.module(session, zoo)


@pytest.fixture
def attach(http: httpx.Client, module: ModuleRow) -> str:
    """Where the module is attached to a deployment of its target."""
    assert http.put(URL, json={"target": "low"}).status_code == 200
    return f"{URL}/modules/{module.id}"


def test_attach_and_detach_are_served_at_once(http: httpx.Client, attach: str, module: ModuleRow) -> None:
    attached = http.put(attach)
    assert (attached.status_code, attached.headers["etag"]) == (200, '"2"')
    assert attached.json()["desired"] == {"target": "low@1", "modules": [module.id]}
    assert attached.json()["observed"]["generation"] == attached.json()["generation"] == 2
    assert http.put(attach).json()["generation"] == 2
    detached = http.delete(attach)
    assert (detached.status_code, detached.json()["generation"]) == (200, 3)
    assert detached.json()["desired"]["modules"] == []
    assert http.get(URL).json() == detached.json()
    assert http.get("/v1/deployments").json()["data"] == [detached.json()]
    assert http.delete(URL).status_code == 204
    assert http.get(URL).status_code == 404


def test_a_list_takes_as_many_queries_for_one_as_for_many(http: httpx.Client, zoo: Zoo, attach: str) -> None:
    numbers = []
    for name in ("one", "two", "three"):
        http.put(f"/v1/deployments/{name}", json={"target": "low"})
        with counting(zoo) as sent:
            assert http.get("/v1/deployments").status_code == 200
        numbers.append(len(sent))
    assert len(set(numbers)) == 1


def test_a_serving_process_that_is_away_is_waited_for(http: httpx.Client, serving: FakeServing, attach: str) -> None:
    serving.away = True
    answer = http.put(attach)
    assert (answer.status_code, answer.json()["generation"]) == (202, 2)
    assert answer.json()["observed"]["generation"] == 1
    again = http.put(attach)
    assert (again.status_code, again.json()["generation"]) == (202, 2)


def test_a_refused_change_is_taken_back(http: httpx.Client, serving: FakeServing, attach: str) -> None:
    serving.refusal = {"status": 422, "code": "no_effect", "detail": "the module changes nothing"}
    answer = http.put(attach)
    assert (answer.status_code, answer.json()["code"]) == (422, "no_effect")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "the module changes nothing" in answer.json()["detail"]
    now = http.get(URL).json()
    assert now["desired"]["modules"] == []
    assert now["generation"] == now["observed"]["generation"] == 3
    assert now["observed"]["problem"] is None


def test_a_refused_creation_leaves_no_deployment(http: httpx.Client, serving: FakeServing, module: ModuleRow) -> None:
    serving.refusal = {"status": 409, "code": "target_mismatch", "detail": "other weights"}
    assert http.put(URL, json={"target": "low"}).status_code == 409
    assert http.get(URL).status_code == 404


def test_if_match_guards_a_change(http: httpx.Client, attach: str) -> None:
    assert http.put(attach, headers={"If-Match": '"7"'}).json()["code"] == "stale_revision"
    assert http.put(attach, headers={"If-Match": '"7"'}).status_code == 412
    assert http.put(attach, headers={"If-Match": "abc"}).status_code == 422
    assert http.put(attach, headers={"If-Match": '"1"'}).status_code == 200
    assert http.delete(URL, headers={"If-Match": '"1"'}).status_code == 412


def test_a_module_for_another_target_is_refused(http: httpx.Client, zoo: Zoo, attach: str) -> None:
    with zoo.database.write() as session:
        seeds.version(session, zoo, "other", seeds.LOW, value=9)
    http.put("/v1/deployments/elsewhere", json={"target": "other"})
    answer = http.put(attach.replace("digits", "elsewhere"))
    assert (answer.status_code, answer.json()["code"]) == (409, "target_mismatch")
    assert http.get("/v1/deployments/elsewhere").json()["generation"] == 1


def test_predictions_go_through_with_their_answers(http: httpx.Client, serving: FakeServing) -> None:
    headers = {"Content-Type": "image/png", "X-Request-ID": "abc"}
    answer = http.post(f"{URL}/predict", content=b"\x89PNG image", headers=headers)
    assert (answer.status_code, answer.json()["classes"][0]["name"]) == (200, "7")
    sent = serving.requests[-1]
    assert sent.url.path == f"{URL}/predict"
    assert (sent.headers["content-type"], sent.headers["x-request-id"]) == ("image/png", "abc")
    bad = http.post(f"{URL}/predict", content=b"text")
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_image")
    assert bad.headers["content-type"] == "application/problem+json"


def test_predictions_without_a_serving_process_say_when_to_come_back(http: httpx.Client, serving: FakeServing) -> None:
    serving.away = True
    answer = http.post(f"{URL}/predict", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (503, "serving_unreachable")
    assert answer.headers["retry-after"].isdigit()


def test_an_image_over_the_limit_is_not_passed_on(http: httpx.Client, serving: FakeServing) -> None:
    assert http.post(f"{URL}/predict", content=b"x" * 1001).status_code == 413
    assert serving.requests == []


@pytest.mark.parametrize("name", ["UPPER", "a%20b", "a%3Fb", "a%23b"])
def test_names_that_are_none_reach_nobody(http: httpx.Client, serving: FakeServing, name: str) -> None:
    assert http.post(f"/v1/deployments/{name}/predict", content=b"x").status_code in (404, 422)
    assert serving.requests == []


def test_a_content_type_of_odd_letters_breaks_nothing(http: httpx.Client) -> None:
    headers = [(b"content-type", b"image/png; name=\xe9")]
    assert http.post("/v1/deployments/digits/predict", content=b"\x89PNG image", headers=headers).status_code == 200


def test_modules_are_set_all_at_once_and_an_earlier_generation_comes_back(
    http: httpx.Client, attach: str, module: ModuleRow
) -> None:
    both = http.put(f"{URL}/modules", json={"modules": [module.id]})
    assert (both.status_code, both.json()["generation"]) == (200, 2)
    assert both.json()["desired"]["modules"] == [module.id]
    assert http.put(f"{URL}/modules", json={"modules": [module.id]}).json()["generation"] == 2
    assert http.put(f"{URL}/modules", json={"modules": []}).json()["generation"] == 3
    back = http.post(f"{URL}/rollback", json={"generation": 2})
    assert (back.status_code, back.json()["generation"]) == (200, 4)
    assert back.json()["desired"]["modules"] == [module.id]
    assert http.post(f"{URL}/rollback", json={"generation": 2}).json()["generation"] == 4
    found = http.get(f"{URL}/revisions", params={"limit": 3}).json()
    assert [(r["generation"], len(r["modules"]), r["refused"]) for r in found["data"]] == [
        (4, 1, False),
        (3, 0, False),
        (2, 1, False),
    ]
    rest = http.get(f"{URL}/revisions", params={"after": found["next_cursor"]}).json()["data"]
    assert [r["generation"] for r in rest] == [1]


def test_sets_that_make_no_sense_are_refused(http: httpx.Client, attach: str, module: ModuleRow) -> None:
    twice = http.put(f"{URL}/modules", json={"modules": [module.id, module.id]})
    assert (twice.status_code, twice.json()["errors"][0]["pointer"]) == (422, "/modules")
    assert http.put(f"{URL}/modules", json={"modules": ["mod_nobody"]}).status_code == 404
    assert http.put("/v1/deployments/nobody/modules", json={"modules": []}).status_code == 404
    assert http.post(f"{URL}/rollback", json={"generation": 9}).status_code == 404
    assert http.post(f"{URL}/rollback", json={"generation": 0}).status_code == 422
    assert http.get("/v1/deployments/nobody/revisions").status_code == 404
    assert http.get(URL).json()["generation"] == 1


def test_of_two_operators_who_race_one_is_told(http: httpx.Client, attach: str, module: ModuleRow) -> None:
    seen = http.get(URL).headers["etag"]
    first = http.put(f"{URL}/modules", json={"modules": [module.id]}, headers={"If-Match": seen})
    second = http.post(f"{URL}/rollback", json={"generation": 1}, headers={"If-Match": seen})
    assert (first.status_code, second.status_code) == (200, 412)
    assert http.get(URL).json()["desired"]["modules"] == [module.id]


def test_a_generation_that_was_refused_is_not_gone_back_to(
    http: httpx.Client, serving: FakeServing, attach: str
) -> None:
    serving.refusal = {"status": 409, "code": "target_mismatch", "detail": "another target"}
    assert http.put(attach).status_code == 409
    answer = http.post(f"{URL}/rollback", json={"generation": 2})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_inference_is_passed_on_as_it_comes_and_back(http: httpx.Client, serving: FakeServing, attach: str) -> None:
    headers = {"Inference-Header-Content-Length": "2", "Accept-Encoding": "gzip"}
    http.post("/v2/models/digits+mod_1/infer?a=b%2F", content=b"{}raw", headers=headers)
    sent = serving.requests[-1]
    assert (sent.method, sent.url.raw_path, sent.content) == ("POST", b"/v2/models/digits+mod_1/infer?a=b%2F", b"{}raw")
    assert sent.headers["inference-header-content-length"] == "2"
    assert sent.headers["accept-encoding"] == "gzip"
    assert sent.headers["x-request-id"].startswith("req_")
    http.post(f"{URL}/predict?modules=mod_1&generation=2", content=b"\x89PNG image")
    assert serving.requests[-1].url.query == b"modules=mod_1&generation=2"
    serving.away = True
    away = http.get("/v2/health/ready")
    assert (away.status_code, set(away.json())) == (503, {"error"})
    assert int(away.headers["retry-after"]) > 0


def _report(zoo: Zoo, replica: str, generation: int, problem: dict[str, str] | None = None) -> None:
    with zoo.database.write() as session:
        replicas.report(session, replica, {"digits": Observation(generation, problem)})


def test_a_change_can_be_waited_for_until_every_replica_serves_it(
    http: httpx.Client, zoo: Zoo, attach: str, module: ModuleRow
) -> None:
    _report(zoo, "rep_1", 2)
    _report(zoo, "rep_2", 1)
    late = threading.Timer(0.5, _report, (zoo, "rep_2", 2))
    late.start()
    started = time.monotonic()
    answer = http.put(f"{attach}?wait=all")
    assert (answer.status_code, answer.json()["desired"]["modules"]) == (200, [module.id])
    assert time.monotonic() - started >= 0.4
    late.join()
    found = http.get(f"{URL}/replicas").json()["data"]
    assert [(row["id"], row["generation"]) for row in found] == [("rep_2", 2), ("rep_1", 2)]


@pytest.mark.parametrize("others", [{}, {"rep_1": 2, "rep_2": 1}], ids=["nobody is there", "one lags"])
def test_a_replica_that_is_not_there_in_time_makes_it_202(
    http: httpx.Client, app: FastAPI, zoo: Zoo, attach: str, others: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = zoo.settings.model_copy(update={"serving_timeout": 0.2})
    monkeypatch.setitem(app.state._state, "zoo", replace(zoo, settings=impatient))
    for replica, generation in others.items():
        _report(zoo, replica, generation)
    assert http.put(f"{attach}?wait=all").status_code == 202
    assert http.put(attach).status_code == 200


def test_a_replica_s_own_refusal_is_told_to_who_waits_for_all(http: httpx.Client, zoo: Zoo, attach: str) -> None:
    _report(zoo, "rep_1", 2)
    _report(zoo, "rep_2", 2, {"code": "bundle_damaged", "detail": "cut off"})
    answer = http.put(f"{attach}?wait=all")
    assert (answer.status_code, answer.json()["code"]) == (409, "bundle_damaged")
    assert "cut off" in answer.json()["detail"]


def test_waiting_for_somebody_else_is_no_choice(http: httpx.Client, attach: str) -> None:
    assert http.put(f"{attach}?wait=some").status_code == 422
    assert http.get("/v1/deployments/nobody/replicas").status_code == 404
