import hashlib
from dataclasses import asdict

import httpx
import pytest

from app.db import pages
from app.store import uploads
from app.zoo import Zoo
from tests.unit import seeds


def upload(http: httpx.Client, content: bytes) -> str:
    announced = http.post("/v1/uploads", json={"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    assert announced.status_code == 201
    assert http.put(announced.json()["content_url"], content=content).status_code == 204
    completed = http.post(f"{announced.headers['location']}/complete")
    assert (completed.status_code, completed.json()["status"]) == (200, "complete")
    return str(completed.json()["id"])


def _version(http: httpx.Client, model: str, upload_id: str) -> httpx.Response:
    body = {"upload": upload_id, "spec": asdict(seeds.network()), "licence": "Apache-2.0"}
    return http.post(f"/v1/models/{model}/versions", json=body)


def test_a_model_from_name_to_alias(http: httpx.Client, zoo: Zoo) -> None:
    created = http.post("/v1/models", json={"name": "low", "description": "digits"})
    assert (created.status_code, created.headers["location"]) == (201, "/v1/models/low")
    added = _version(http, "low", upload(http, seeds.tensors()))
    assert (added.status_code, added.headers["location"]) == (201, "/v1/models/low/versions/1")
    assert http.get(added.headers["location"]).json() == added.json()
    assert (added.json()["status"], added.json()["ref"]) == ("validating", "low@1")
    assert added.json()["spec"] == {**asdict(seeds.network()), "classes": list(seeds.LOW)} | {
        "input_size": [1, 8, 8],
        "mean": [0.5],
        "std": [0.5],
    }
    assert http.put("/v1/models/low/aliases/best", json={"version": 1}).json()["version"] == 1
    assert http.get("/v1/models/low").json()["aliases"] == {"best": 1}
    assert http.delete("/v1/models/low/aliases/best").status_code == 204
    assert http.get("/v1/models/low").json()["aliases"] == {}
    assert http.patch("/v1/models/low", json={"description": "new"}).json()["description"] == "new"


def test_archived_models_leave_the_list(http: httpx.Client) -> None:
    http.post("/v1/models", json={"name": "old"})
    assert http.delete("/v1/models/old").status_code == 204
    assert http.get("/v1/models").json()["data"] == []
    assert [m["name"] for m in http.get("/v1/models?archived=true").json()["data"]] == ["old"]
    assert http.patch("/v1/models/old", json={"archived": False}).json()["archived_at"] is None


@pytest.mark.parametrize("content", [seeds.tensors()[:-1], b"\x80\x04 a pickle, perhaps" + bytes(100), b"{}"])
def test_damaged_weights_make_no_version(http: httpx.Client, content: bytes) -> None:
    http.post("/v1/models", json={"name": "low"})
    answer = _version(http, "low", upload(http, content))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "invalid_safetensors")
    assert http.get("/v1/models/low").json()["last_version"] == 0


def test_pages_come_to_an_end(http: httpx.Client) -> None:
    for i in range(5):
        http.post("/v1/models", json={"name": f"m{i}"})
    seen, after, page = [], "", {}
    for _ in range(3):
        page = http.get(f"/v1/models?limit=2{after}").json()
        seen.append([m["name"] for m in page["data"]])
        after = f"&after={page['next_cursor']}"
    assert seen == [["m4", "m3"], ["m2", "m1"], ["m0"]]
    assert (page["has_more"], page["next_cursor"]) == (False, None)


def test_an_upload_that_broke_off_goes_on(http: httpx.Client) -> None:
    content = seeds.tensors()
    body = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    url = http.post("/v1/uploads", json=body).headers["location"]
    http.put(f"{url}/content", content=content[:20])
    assert http.get(url).json()["received"] == 20
    assert http.post(f"{url}/complete").json()["errors"][0]["code"] == "incomplete"
    assert http.put(f"{url}/content?offset=30", content=content[30:]).status_code == 409
    assert http.put(f"{url}/content?offset=20", content=content[20:]).status_code == 204
    assert http.post(f"{url}/complete").status_code == 200
    assert http.post(f"{url}/complete").status_code == 200
    assert http.put(f"{url}/content", content=content).status_code == 409


def test_an_upload_of_other_bytes_is_refused(http: httpx.Client, zoo: Zoo) -> None:
    url = http.post("/v1/uploads", json={"bytes": 4, "sha256": "0" * 64}).headers["location"]
    http.put(f"{url}/content", content=b"abcd")
    answer = http.post(f"{url}/complete")
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert http.put(f"{url}/content", content=b"abcde").status_code == 413
    with zoo.database.read() as session:
        assert uploads.get(session, url.rpartition("/")[2]).key is None


def test_a_dataset_is_counted_and_listed(http: httpx.Client) -> None:
    content = seeds.parquet([0, 0, 1], ("a", "b"))
    answer = http.post("/v1/datasets", json={"name": "d", "upload": upload(http, content)})
    assert answer.status_code == 201
    assert answer.json()["counts"] == {"a": 2, "b": 1}
    assert http.get("/v1/datasets").json()["data"] == [http.get(answer.headers["location"]).json()]


def test_a_dataset_of_other_columns_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/datasets", json={"name": "d", "upload": upload(http, seeds.tensors())})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "invalid_parquet")
    assert http.get("/v1/datasets").json()["data"] == []


@pytest.mark.parametrize("name", ["mdl_x", "ver_x"])
def test_a_name_that_would_be_taken_for_an_id_is_refused(http: httpx.Client, name: str) -> None:
    answer = http.post("/v1/models", json={"name": name})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "invalid_name")
    assert http.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize("position", [2**63, -1, 10**100])
def test_a_cursor_beyond_any_row_is_refused(http: httpx.Client, zoo: Zoo, position: int) -> None:
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo).id
    for path in ("/v1/models/low/versions", f"/v1/cloning-jobs/{job}/events"):
        answer = http.get(path, params={"after": pages.encode(position)})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "invalid_cursor")
        assert http.get(path, params={"after": pages.encode(2**63 - 1)}).status_code == 200


def test_a_check_is_asked_for(http: httpx.Client, zoo: Zoo) -> None:
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low")
        data, empty = seeds.dataset(session, zoo, images=10).id, seeds.dataset(session, zoo, images=9).id
    path = "/v1/models/low/versions/1/check"
    asked = http.post(path, json={"dataset": data})
    assert (asked.status_code, asked.json()["checking"], asked.json()["check"]) == (202, data, None)
    refused = http.post(path, json={"dataset": empty})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "too_few_images")
    assert http.post(path, json={"dataset": "ds_none"}).status_code == 404
    http.delete(f"/v1/datasets/{data}")
    assert http.post(path, json={"dataset": data}).json()["code"] == "archived"
    with zoo.database.write() as session:
        seeds.version(session, zoo, "fresh", status="validating", value=3)
    waiting = http.post("/v1/models/fresh/versions/1/check", json={"dataset": data})
    assert (waiting.status_code, waiting.json()["code"]) == (409, "invalid_transition")
