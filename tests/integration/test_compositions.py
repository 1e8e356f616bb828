"""Two modules of a live deployment, out of balance at first, then with the composition that a worker has fitted."""

from dataclasses import replace

import pytest

from app.demo import Material, png
from pnc_client import ApiError, Client, Dataset
from pnc_core import attach, read_bundle, read_composition
from pnc_core.analysis.evaluation import predict
from tests.integration.conftest import QUICK


@pytest.fixture(scope="module")
def modules(service: object, dataset: Dataset) -> list[str]:
    """Modules of 7, and of 8 and 9, for digits-low."""
    made = []
    with Client(service.url) as client:  # type: ignore[attr-defined]
        for classes in (("7",), ("8", "9")):
            config = replace(QUICK, classes=classes, preset="fast", keep_anyway=True)
            job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, config).id)
            assert job.module is not None, job.problem
            made.append(job.module)
    return made


def test_a_deployment_takes_the_composition_of_its_modules(
    client: Client, material: Material, dataset: Dataset, modules: list[str], tmp_path: object
) -> None:
    client.deployments.create("together", "digits-low")
    plain = client.deployments.set_modules("together", modules)
    assert plain.composition is None
    assert "out of balance" in (plain.warning or "")

    steps: list[tuple[float, str]] = []
    row = client.compositions.create("digits-low", modules, dataset.id, head="joint", keep_anyway=True)
    row = row.wait(lambda share, message: steps.append((share, message)), timeout=240)
    assert row.state == "ready", row.problem
    assert steps[-1] == (1.0, "fitted")
    assert row.comparison is not None
    figures = row.comparison.figures
    assert set(figures) == {"module", "plain", "ensemble", "probe", "alone"}
    assert figures["module"].average >= figures["plain"].average - 0.02  # the fit starts at plain scales

    again = client.deployments.set_modules("together", modules)
    assert (again.composition, again.warning) == (row.id, None)
    assert again.generation == plain.generation + 1
    images = material.test.images[:20]
    answers = [client.deployments.predict("together", png(image)) for image in images]
    assert {answer.generation for answer in answers} == {again.generation}

    bundles = [read_bundle(client.modules.download(m, "full", tmp_path / m)) for m in modules]  # type: ignore[operator]
    numbers = read_composition(row.download(tmp_path / "numbers"))  # type: ignore[operator]
    composed = attach(material.target[0], bundles, composition=numbers)
    expected = predict(composed, material.target[1], images).softmax(1)
    for answer, shares in zip(answers, expected, strict=True):
        best = answer.classes[0]
        assert best.probability == pytest.approx(float(shares[composed.classes.index(best.name)]), abs=1e-3)

    with pytest.raises(ApiError) as refused:
        client.compositions.delete(row.id)
    assert refused.value.status == 409
    left = client.deployments.detach("together", modules[1])
    assert (left.composition, left.warning) == (None, None)
    client.compositions.delete(row.id)
    assert row.id not in {one.id for one in client.compositions.list()}


def test_a_running_composition_is_cancelled(client: Client, dataset: Dataset, modules: list[str]) -> None:
    row = client.compositions.create("digits-low", modules, dataset.id, head="ridge")
    ended = client.compositions.cancel(row.id)
    assert ended.state in ("cancelled", "cancelling")
    assert client.compositions.wait(row.id, timeout=60).state == "cancelled"
