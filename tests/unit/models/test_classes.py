"""Classes of a version are searched, and every request names them in the same way."""

from dataclasses import asdict, replace
from typing import Any

import httpx
import pytest

from app.jobs.service import JobRequest
from app.models import service as models
from app.zoo import Zoo
from pnc_core.config import CloneConfig, NetworkSpec
from tests.unit import seeds

MANY = 1000
URL = "/v1/models/high/versions/1/classes"
WORDNET = ("n01440764", "n01443537", "n01484850")
TABLE = {"n01440764": ["tench, Tinca tinca"], "n01443537": ["goldfish, Carassius auratus"]}


def _request(zoo: Zoo, classes: tuple[str, ...], aliases: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """A job that clones into `low` from a source with these classes; the dataset has images of all of them."""
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", seeds.LOW, value=1)
        source = seeds.version(session, zoo, "high", classes, value=2)
        source.spec = replace(seeds.network(classes), class_aliases=aliases or {}).to_dict()
        data = seeds.dataset(session, zoo)
        data.classes = [*seeds.LOW, *classes]
        data.counts = dict.fromkeys(data.classes, 10)
        return asdict(JobRequest(target="low", source="high", dataset=data.id, config=CloneConfig(classes=("x",))))


def _post(http: httpx.Client, body: dict[str, Any], *classes: str) -> httpx.Response:
    config = {"classes": list(classes)}
    validated = http.post("/v1/cloning-jobs/validate", json=body | {"config": config}).json()
    answer = http.post("/v1/cloning-jobs", json=body | {"config": config})
    assert validated["problems"] == (answer.json()["errors"] if answer.status_code == 422 else [])
    return answer


def _many() -> tuple[str, ...]:
    return ("tench, Tinca tinca", "goldfish, Carassius auratus", *(f"kind of fish {n}" for n in range(2, MANY)))


@pytest.mark.parametrize("text", ["goldfish", "Carassius auratus", "#1", "1", "goldfish, Carassius auratus"])
def test_a_job_stores_the_sources_own_name(http: httpx.Client, zoo: Zoo, text: str) -> None:
    created = _post(http, _request(zoo, _many()), text)
    assert created.status_code == 201
    assert created.json()["config"]["classes"] == ["goldfish, Carassius auratus"]


@pytest.mark.parametrize("text", ["n01443537", "goldfish", "Carassius auratus", "#1"])
def test_classes_of_wordnet_are_named_by_a_table(http: httpx.Client, zoo: Zoo, text: str) -> None:
    created = _post(http, _request(zoo, WORDNET, TABLE), text)
    assert created.json()["config"]["classes"] == ["n01443537"]
    with zoo.database.read() as session:  # the worker builds the network from the row
        assert isinstance(models.spec_of(models.get_version(session, "high", 1)), NetworkSpec)


def test_a_typo_is_answered_with_one_short_line(http: httpx.Client, zoo: Zoo) -> None:
    answer = _post(http, _request(zoo, _many()), "gold fish")
    detail = answer.json()["detail"]
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "unknown_class")
    assert detail == "expected a class of high@1, got 'gold fish'; did you mean 'goldfish'?"
    assert len(answer.content) < 600
    nothing = _post(http, _request_again(http), "zzz").json()["detail"]
    assert nothing.endswith(f"search its names with GET {URL}")


def _request_again(http: httpx.Client) -> dict[str, Any]:
    (data,) = http.get("/v1/datasets").json()["data"]
    return {"target": "low", "source": "high", "dataset": data["id"]}


def test_a_thousand_typos_are_answered_with_three_lines(http: httpx.Client, zoo: Zoo) -> None:
    answer = _post(http, _request(zoo, _many()), *(f"zzz {n}" for n in range(MANY)))
    assert len(answer.json()["errors"]) == 3
    assert len(answer.content) < 2000


def test_a_name_of_several_classes_and_a_repeated_class_are_refused(http: httpx.Client, zoo: Zoo) -> None:
    body = _request(zoo, ("crane, bird", "crane, machine", "tench, Tinca tinca"))
    (problem,) = _post(http, body, "crane").json()["errors"]
    assert problem["code"] == "ambiguous_class"
    assert "'crane, bird' and 'crane, machine'" in problem["detail"]
    (problem,) = _post(http, body, "tench", "#2").json()["errors"]
    assert (problem["code"], "got 'tench' and '#2'" in problem["detail"]) == ("repeated_class", True)


def test_an_owner_names_clonable_classes_in_the_same_way(http: httpx.Client, zoo: Zoo) -> None:
    body = _request(zoo, _many())
    http.patch("/v1/models/high", json={"clonable": ["goldfish", "no such class"]})
    assert _post(http, body, "#1").status_code == 201
    assert _post(http, body, "tench").json()["errors"][0]["code"] == "not_clonable"


def test_classes_are_listed_a_page_at_a_time(http: httpx.Client, zoo: Zoo) -> None:
    _request(zoo, _many())
    first = http.get(URL, params={"limit": 2}).json()
    assert first["data"] == [
        {"number": 0, "name": "tench, Tinca tinca", "aliases": ["tench", "Tinca tinca"]},
        {"number": 1, "name": "goldfish, Carassius auratus", "aliases": ["goldfish", "Carassius auratus"]},
    ]
    following = http.get(URL, params={"limit": 2, "after": first["next_cursor"]}).json()
    assert [name["number"] for name in following["data"]] == [2, 3]
    last = http.get(URL, params={"search": "KIND fish 99", "limit": 100}).json()
    assert [name["number"] for name in last["data"]] == [n for n in range(MANY) if "99" in str(n)]
    assert (last["has_more"], last["next_cursor"]) == (False, None)
    assert [name["number"] for name in http.get(URL, params={"search": "#999"}).json()["data"]] == [999]


def test_a_list_of_no_version_and_an_odd_page_are_refused(http: httpx.Client, zoo: Zoo) -> None:
    _request(zoo, WORDNET)
    assert http.get("/v1/models/high/versions/2/classes").status_code == 404
    assert http.get(URL, params={"after": "!"}).status_code == 422
    assert http.get(URL, params={"limit": 101}).status_code == 422
