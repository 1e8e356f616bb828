"""Sources are found by their classes and ranked by forecasts; forecasts that are late are missing alone."""

import subprocess
from typing import Any

import httpx
import pytest

from app.errors import Invalid
from app.jobs.asking import advising, recommending
from app.jobs.asking.recommending import recommended
from app.jobs.service import JobRequest
from app.zoo import Zoo
from pnc_client.schemas.jobs import RecommendationRequest, Recommendations
from tests.unit import seeds


def _told(accuracy: float, probe: float) -> dict[str, Any]:
    figure = {"old": accuracy, "new": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02, "numbers": 1000}
    figures = {"module": {**figure, "average": accuracy}, "probe": {**figure, "average": probe}}
    return {
        "verdict": {"figures": figures, "images": 100, "text": "better"}, "more": [40.0, accuracy], "seconds": 2.0,
    }  # fmt: skip


@pytest.fixture
def asked(zoo: Zoo) -> RecommendationRequest:
    """A target, a good, a poor and an unknown source, and one without the class 9."""
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", seeds.LOW, value=1)
        for value, name in enumerate(("good", "poor", "silent"), 2):
            seeds.version(session, zoo, name, seeds.HIGH, value=value)
        seeds.version(session, zoo, "other", ("7", "8"), value=9)
        data = seeds.dataset(session, zoo)
    return RecommendationRequest(target="low", classes=["7", "9"], dataset=data.id)


def _answers(monkeypatch: pytest.MonkeyPatch, **told: dict[str, Any]) -> list[list[str]]:
    calls: list[list[str]] = []

    def told_of(zoo: Zoo, requests: list[JobRequest]) -> list[dict[str, Any]]:
        calls.append([request.source for request in requests])
        return [told[request.source.partition("@")[0]] for request in requests]

    monkeypatch.setattr(recommending, "told_of", told_of)
    return calls


SILENT = {"error": {"code": "no_advice", "detail": "expected a forecast, got none"}}


def test_sources_are_ranked_and_the_silent_one_is_last(
    zoo: Zoo, asked: RecommendationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers(monkeypatch, good=_told(0.9, 0.7), poor=_told(0.6, 0.7), silent=SILENT)
    found = Recommendations.model_validate(recommended(zoo, asked))
    assert [one.source for one in found.sources] == ["good@1", "poor@1", "silent@1"]
    assert found.best == "good@1"
    assert "good@1: 90.0 % (90 %: 88.0 to 92.0) is expected" in found.text
    assert found.sources[2].advice is None
    assert found.sources[2].no_advice == "expected a forecast, got none"
    assert found.sources[0].classes == ["7", "9"]


def test_no_source_is_best_where_a_probe_is_as_good(
    zoo: Zoo, asked: RecommendationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers(monkeypatch, good=_told(0.7, 0.7), poor=_told(0.6, 0.7), silent=SILENT)
    found = recommended(zoo, asked)
    assert found["best"] is None
    assert found["text"].startswith("no source is expected to be better than a linear probe")


def test_only_so_many_sources_are_measured(
    zoo: Zoo, asked: RecommendationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _answers(monkeypatch, good=SILENT, poor=SILENT, silent=SILENT)
    found = recommended(zoo, asked.model_copy(update={"most": 1}))
    assert len(calls[0]) == 1
    assert (found["best"], found["others"]) == (None, 2)
    assert found["text"].startswith("no forecast could be made")


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"classes": ["7", "x"]}, "no_source", "/classes"),
        ({"target": "nothing"}, "not_found", "/target"),
        ({"dataset": "ds_nothing"}, "not_found", "/dataset"),
    ],
)
def test_what_cannot_be_recommended_is_refused(
    zoo: Zoo, asked: RecommendationRequest, changes: dict[str, Any], code: str, pointer: str
) -> None:
    with pytest.raises(Invalid) as caught:
        recommended(zoo, asked.model_copy(update=changes))
    assert [(problem.code, problem.pointer) for problem in caught.value.problems] == [(code, pointer)]


def test_forecasts_that_were_made_in_time_count(
    zoo: Zoo, asked: RecommendationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("advising", 1, output=b'{"seconds": 1}\n{"seco')

    monkeypatch.setattr(subprocess, "run", run)
    with zoo.database.read() as session:
        requests = [recommending._request(asked, row, names) for row, names in recommending._having(session, asked)]
    first, second, third = advising.told_of(zoo, requests)
    assert first == {"seconds": 1}
    assert second == third
    assert "none after" in second["error"]["detail"]


def test_classes_of_all_models_are_searched(http: httpx.Client, zoo: Zoo, asked: RecommendationRequest) -> None:
    found = http.get("/v1/classes", params={"search": "7"}).json()
    assert found["total"] == 1
    assert [version["version"] for version in found["classes"][0]["versions"]] == [
        "other@1", "silent@1", "poor@1", "good@1",
    ]  # fmt: skip
    assert http.get("/v1/classes", params={"target": "low"}).json()["total"] == 5
    assert http.get("/v1/classes", params={"search": "nothing"}).json() == {"classes": [], "total": 0}
    assert http.get("/v1/classes", params={"target": "nothing"}).status_code == 404
