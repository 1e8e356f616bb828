"""Compositions over HTTP, with real modules and without a worker."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.compositions import runs
from app.compositions import service as compositions
from app.db.leases import Lease
from app.lifecycle import blockers
from app.main import create_app
from app.modules import service as modules
from pnc_core.module.bundle import digest
from tests.unit.serving import composing, world
from tests.unit.serving.world import NAME, World


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = world.make(tmp_path_factory.mktemp("zoo"))
    yield made
    made.zoo.close()


@pytest.fixture
def http(here: World) -> Iterator[TestClient]:
    with TestClient(
        create_app(here.zoo.settings.model_copy(update={"pages": False})), base_url="http://127.0.0.1"
    ) as client:
        yield client


def _claim(here: World) -> Lease:
    with here.zoo.database.write() as session:
        lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


def _body(here: World, http: TestClient, **more: object) -> dict[str, object]:
    data = http.get("/v1/datasets").json()["data"][0]["id"]
    return {"target": "low", "modules": [here.modules[0], here.modules[1]], "dataset": data, **more}


def test_a_composition_waits_is_listed_and_cancelled(here: World, http: TestClient) -> None:
    made = http.post("/v1/compositions", json=_body(here, http))
    assert made.status_code == 202
    row = made.json()
    path = f"/v1/compositions/{row['id']}"
    assert made.headers["location"] == path
    assert (row["state"], row["target"], row["comparison"]) == ("queued", "low@1", None)
    assert row["modules"] == sorted([here.modules[0], here.modules[1]])
    assert http.get(f"/v1/compositions?module={here.modules[0]}").json()["data"][0] == row
    assert http.get(f"/v1/compositions?module={here.modules[2]}").json()["data"] == []
    assert http.delete(path).status_code == 409
    assert http.get(f"{path}/file").status_code == 404
    assert http.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert http.post(f"{path}/cancel").status_code == 409
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404
    assert http.get("/v1/compositions").json()["data"] == []


def test_a_ready_composition_is_downloaded_served_and_kept_while_it_is_used(here: World, http: TestClient) -> None:
    composition = composing.made(here, (0, 1))
    row = composing.ready(here, (0, 1), composition)
    path = f"/v1/compositions/{row}"
    found = http.get(path).json()
    assert found["comparison"]["figures"].keys() >= {"module", "plain", "probe", "alone"}
    assert digest(http.get(f"{path}/file").content) == f"sha256:{found['digest']}"
    here.want([here.modules[0], here.modules[1]])
    deployment = http.get(f"/v1/deployments/{NAME}").json()
    assert (deployment["composition"], deployment["warning"]) == (row, None)
    assert http.get(f"/v1/deployments/{NAME}/revisions").json()["data"][0]["composition"] == row
    refused = http.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    here.want([*here.modules])
    deployment = http.get(f"/v1/deployments/{NAME}").json()
    assert deployment["composition"] is None
    assert "out of balance" in deployment["warning"]
    assert http.delete(path).status_code == 204
    here.want([here.modules[0], here.modules[1]])
    assert http.get(f"/v1/deployments/{NAME}").json()["composition"] is None
    here.want([])
    assert http.get(f"/v1/deployments/{NAME}").json()["warning"] is None


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"target": "high"}, 409, "target_mismatch"),
        ({"target": "none"}, 422, "invalid"),
        ({"modules": []}, 422, "invalid"),
        ({"modules": ["mod_0"]}, 404, "not_found"),
        ({"dataset": "ds_0"}, 404, "not_found"),
        ({"head": "router"}, 422, "invalid"),
    ],
)
def test_a_composition_that_cannot_be_fitted_is_refused(
    here: World, http: TestClient, change: dict[str, object], status: int, code: str
) -> None:
    answer = http.post("/v1/compositions", json=_body(here, http) | change)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_module_twice_is_refused(here: World, http: TestClient) -> None:
    answer = http.post("/v1/compositions", json=_body(here, http, modules=[here.modules[0]] * 2))
    assert answer.json()["errors"][0]["code"] == "repeated"


def test_a_workspace_has_a_limit_of_unfinished_compositions(here: World, http: TestClient) -> None:
    body = _body(here, http)
    answers = [http.post("/v1/compositions", json=body) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [202] * 20 + [409]
    for answer in answers[:20]:
        http.post(f"/v1/compositions/{answer.json()['id']}/cancel")


def test_a_dead_worker_s_composition_is_taken_back_and_fails_after_some_attempts(here: World, http: TestClient) -> None:
    row = http.post("/v1/compositions", json=_body(here, http)).json()["id"]
    for attempt in (1, 2):
        lease = _claim(here)
        assert lease.id == row
        with here.zoo.database.write() as session:
            runs.record(session, lease, progress=0.5, message="half")
        assert http.get(f"/v1/compositions/{row}").json()["progress"] == 0.5
        with here.zoo.database.write() as session:
            runs.crashed(session, lease, "it was killed", "crashed", 2)
        found = http.get(f"/v1/compositions/{row}").json()
        assert found["state"] == ("queued" if attempt == 1 else "failed")
    assert found["problem"]["code"] == "attempts_exhausted"


def test_a_running_composition_is_cancelled_by_its_worker(here: World, http: TestClient) -> None:
    row = http.post("/v1/compositions", json=_body(here, http)).json()["id"]
    lease = _claim(here)
    answer = http.post(f"/v1/compositions/{row}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    with here.zoo.database.write() as session:
        assert runs.heartbeat(session, lease) == "cancel"
        runs.finish_cancel(session, lease)
    assert http.get(f"/v1/compositions/{row}").json()["state"] == "cancelled"


def test_a_module_of_an_unfinished_composition_is_not_purged(here: World, http: TestClient) -> None:
    row = http.post("/v1/compositions", json=_body(here, http)).json()["id"]
    with here.zoo.database.write() as session:
        codes = [one.code for one in blockers.of(session, modules.get(session, here.modules[0]))]
        assert "needed_by_composition" in codes
        compositions.cancel(session, row)
        session.flush()
        codes = [one.code for one in blockers.of(session, modules.get(session, here.modules[0]))]
        assert "needed_by_composition" not in codes
