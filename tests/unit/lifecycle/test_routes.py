"""Archive, restore and purge over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.jobs.tables import JobRow
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing
from tests.unit.keyed import client_of, keyed_app, new_key


@pytest.fixture
def ids(zoo: Zoo) -> dict[str, str]:
    """Paths of one of everything, where the module was cloned from `high` into `low`."""
    with zoo.database.write() as session:
        seeds.module(session, zoo)
        job = session.scalars(select(JobRow)).one()
        assert job.module is not None
        return {
            "module": f"/v1/modules/{job.module.id}",
            "dataset": f"/v1/datasets/{job.dataset_id}",
            "version": "/v1/models/high/versions/1",
            "model": "/v1/models/low",
        }


@pytest.mark.parametrize("kind", ["module", "dataset", "version", "model"])
def test_everything_can_be_archived_and_restored(http: httpx.Client, ids: dict[str, str], kind: str) -> None:
    path = ids[kind]
    assert http.delete(path).status_code == 204
    assert http.get(path).json()["archived_at"] is not None
    list_query = path.rpartition("/")[0]
    assert http.get(f"{list_query}?archived=true").json()["data"] != []
    assert path.rpartition("/")[2] not in http.get(list_query).text.replace("/1", "")  # ids and names, not numbers
    assert http.patch(path, json={"archived": False}).json()["archived_at"] is None
    assert http.patch(path, json={"archived": True}).status_code == 200


def test_a_plan_changes_nothing_and_a_purge_says_where_the_bytes_are(http: httpx.Client, ids: dict[str, str]) -> None:
    for kind in ("module", "dataset", "version", "model"):
        path = ids[kind]
        refused = http.post(f"{path}/purge")
        assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
        assert "not_archived" in {fault["code"] for fault in refused.json()["errors"]}
        http.delete(path)
        planned = http.get(f"{path}/purge").json()
        assert (planned["kind"], planned["purged_at"], planned["obstacles"]) == (kind, None, [])
        assert {one["fate"] for one in planned["objects"]} == {"stored"}
        assert http.get(path).status_code == 200
        done = http.post(f"{path}/purge").json()
        assert {one["fate"] for one in done["objects"]} == {"gone"}
        assert done["rows"] == planned["rows"]
        assert http.get(path).status_code == 404
        assert http.post(f"{path}/purge").json()["purged_at"] == done["purged_at"]
    assert http.get("/v1/cloning-jobs").json()["data"][0]["target"] == "low@1"


def test_the_refusal_names_what_is_in_the_way(http: httpx.Client, ids: dict[str, str]) -> None:
    http.delete("/v1/models/high/versions/1")
    refused = http.post("/v1/models/high/versions/1/purge").json()
    (fault,) = refused["errors"]
    assert fault["code"] == "needed_by_module"
    assert ids["module"].rpartition("/")[2] in fault["detail"]
    assert fault["detail"] == refused["detail"]


def test_an_archived_module_is_not_attached(http: httpx.Client, ids: dict[str, str]) -> None:
    http.put("/v1/deployments/digits", json={"target": "low"})
    http.delete(ids["module"])
    refused = http.put(f"/v1/deployments/digits/modules/{ids['module'].rpartition('/')[2]}")
    assert (refused.status_code, refused.json()["code"]) == (409, "archived")


def test_retention_is_a_number_of_days_or_off(http: httpx.Client) -> None:
    assert http.get("/v1/workspace").json()["retention_days"] is None
    assert http.patch("/v1/workspace", json={"retention_days": 30}).json()["retention_days"] == 30
    assert http.patch("/v1/workspace", json={"require_signature": False}).json()["retention_days"] == 30
    assert http.patch("/v1/workspace", json={"retention_days": "off"}).json()["retention_days"] is None
    for odd in (0, -1, "never", 10**9):
        assert http.patch("/v1/workspace", json={"retention_days": odd}).status_code == 422


class TestWithKeys:
    """What cannot be taken back is for few, and noted."""

    @pytest.fixture
    def app(self, tmp_path: Path, serving: FakeServing) -> Iterator[FastAPI]:
        """The application, which asks for keys."""
        with keyed_app(tmp_path, serving) as app:
            yield app

    def test_a_purge_needs_admin_and_is_noted(self, app: FastAPI, zoo: Zoo) -> None:
        with zoo.database.write() as session:
            seeds.version(session, zoo, "a")
        _, writer = new_key(zoo, ["read", "write", "jobs", "deploy"])
        _, admin = new_key(zoo, ["admin"])
        with client_of(app, writer) as http:
            assert http.delete("/v1/models/a/versions/1").status_code == 204
            assert http.get("/v1/models/a/versions/1/purge").status_code == 200
            assert http.post("/v1/models/a/versions/1/purge").status_code == 403
        with client_of(app, admin) as http:
            assert http.post("/v1/models/a/versions/1/purge").status_code == 200
            assert http.post("/v1/models/a/purge").status_code == 409
            noted = [(entry["action"], entry["outcome"]) for entry in http.get("/v1/audit").json()["data"]]
        assert noted == [
            ("purge_model", "in_use"),
            ("purge_version", "200"),
            ("purge_version", "forbidden"),
            ("archive_version", "204"),
        ]
