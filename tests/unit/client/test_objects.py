"""Objects keep their connection, and show themselves in a notebook."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from app.jobs import runs
from app.zoo import Zoo
from pnc_client import Client, Module, pictures
from pnc_client.schemas.jobs import newest_trials
from tests.unit import seeds

TRIALS = [
    {"target_position": "<a>", "source_position": f"b{p}", "round": r, "score": s, "parameters": p}
    for r, s, p in ((0, 0.5, 100), (0, 0.7, 300), (1, 0.9, 200))
]


@pytest.fixture
def module(zoo: Zoo) -> str:
    """Id of a module."""
    with zoo.database.write() as session:
        return seeds.module(session, zoo).id


def test_from_a_job_to_its_module_and_a_deployment(client: Client, module: str, tmp_path: Path) -> None:
    job = next(client.jobs.list())
    shares: list[float] = []
    assert job.wait(progress=lambda share, message: shares.append(share)).state == "succeeded"
    assert shares[-1] == 1.0
    assert job.refresh() == job
    found = job.result()
    assert found.id == module
    sent: list[tuple[int, int]] = []
    path = found.download(tmp_path / "full", progress=lambda done, size: sent.append((done, size)))
    assert sent[-1] == (path.stat().st_size, path.stat().st_size)
    deployment = client.deployments.create("digits", "low").attach(found)
    assert deployment.desired.modules == [module]
    assert deployment.wait().detach(module).desired.modules == []


def test_an_object_made_by_hand_has_no_connection(client: Client, module: str) -> None:
    copied = Module.model_validate(client.modules.get(module).model_dump())
    with pytest.raises(ValueError, match="made by hand"):
        copied.manifest()
    assert module in copied._repr_html_()


def test_a_job_without_module_says_so(client: Client, zoo: Zoo) -> None:
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo)
    with pytest.raises(ValueError, match="queued"):
        client.jobs.get(job.id).result()


def test_a_job_shows_its_plot(client: Client, zoo: Zoo) -> None:
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo)
        lease = runs.claim(session, "w")
        assert lease is not None
        for trial in TRIALS:
            runs.record_trial(session, lease, stage="screening", progress=0.1, **trial)
    card = ElementTree.fromstring(client.jobs.get(job.id)._repr_html_())
    shapes = [element.tag for element in card.iter() if element.tag in ("circle", "rect")]
    assert shapes == ["circle", "circle"]  # the third is the star
    assert "running" in "".join(card.itertext())


def plotted(trials: list[dict[str, Any]]) -> ElementTree.Element:
    rows = newest_trials([SimpleNamespace(**{"attempt": 1, **trial}) for trial in trials], getattr)
    return ElementTree.fromstring(pictures.position_plot(rows, mark_best=True))


def test_the_plot_has_all_trials() -> None:
    picture = plotted(TRIALS)
    circles = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in picture.iter("circle")]
    (star,) = [t for t in picture.iter("text") if (t.text or "").startswith("★")]
    assert circles[0][0] < float(star.attrib["x"]) < circles[1][0]  # by size
    assert circles[0][1] > circles[1][1] > float(star.attrib["y"])  # by score, upwards
    assert picture.attrib["aria-label"] == "3 positions tried, scores from 0.500 to 0.900"


def test_a_repeated_trial_is_drawn_once() -> None:
    again = {**TRIALS[0], "attempt": 2, "score": 0.6}
    picture = plotted([*TRIALS, again])
    assert len(list(picture.iter("circle"))) == 2
    assert "<a> → b100: 0.600" in "".join(picture.itertext())
    assert "b100: 0.500" not in "".join(picture.itertext())
    assert (picture.attrib["aria-label"]).startswith("3 positions tried")


@pytest.mark.parametrize("trials", [TRIALS[:1], TRIALS[:2], [{**TRIALS[0], "parameters": None}]])
def test_few_trials_can_be_drawn(trials: list[dict[str, Any]]) -> None:
    assert len(list(plotted(trials).iter("title"))) == len(trials)


def test_names_are_text() -> None:
    module = {
        "id": "mod_1", "source": "<script>x</script>", "target": "a", "classes": ["<b>"], "bundles": [],
    }  # fmt: skip
    card = pictures.module_card(module, {"kept_fraction": 0.5})
    assert "<script>" not in card
    assert "<b>" not in card
    assert "&lt;b&gt;" in card
