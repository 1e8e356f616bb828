"""The evidence on a module: its alternatives, confusions and explanations; and the accuracy of a job's networks."""

import dataclasses
from pathlib import Path

import pytest
import torch

from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.demo import png_rows
from app.models.service import Accuracy
from app.zoo import Zoo
from pnc_client.parquet import write_parquet
from pnc_core.analysis.evaluation import predict
from pnc_core.config import CloneConfig, Position
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.module.bundle import Bundle
from pnc_core.module.verdict import Answers, judge
from tests.unit import seeds
from tests.unit.pnc_core import nets
from workers.networks import judging
from workers.networks.judging import evaluate_module, measure_accuracy

OLD, NEW, EACH = "01234", ("8", "6"), 12
CONFIG = CloneConfig(classes=NEW, validation=0.25, position=Position(target="blocks.1", source="blocks.1"))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Noise that depends on its label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(EACH)
    pixels = (
        torch.randint(0, 256, (len(labels), 1, 8, 8), generator=generator) * (labels[:, None, None, None] + 1) // 10
    )
    return ImageSet(pixels.to(torch.uint8), labels, tuple("0123456789"))


@pytest.fixture(scope="module")
def networks() -> tuple[nets.Network, nets.Network]:
    return nets.network("cnn", 8, 1, OLD, width=4), nets.network("cnn", 8, 1, "56789", width=4)


@pytest.fixture(scope="module")
def bundle(networks: tuple[nets.Network, nets.Network], images: ImageSet) -> Bundle:
    assert CONFIG.position is not None
    return nets.hand_made(*networks, images, CONFIG.position, NEW, "affine")


@pytest.fixture(scope="module")
def judged(bundle: Bundle) -> Bundle:
    """The same bundle with a verdict."""
    alone, module = Answers([True] * 4, [False] * 4, 0), Answers([True, True, True, False], [True] * 4, 9)
    verdict = judge(module, {"alone": alone}, "cross-fitted")
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, verdict=verdict))


def test_the_alternatives_accuracies_and_the_confusions_are_those_that_the_job_reported(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, judged: Bundle
) -> None:
    before = [fingerprint(network) for network, _ in networks]
    confusion = {"classes": [*OLD, *NEW], "before": [[1]], "after": [[1]]}
    found = evaluate_module(*networks, images, CONFIG, judged, {"verdict": {}, "confusion": confusion})
    assert [fingerprint(network) for network, _ in networks] == before
    assert found["worth"] == {"alone": {"old": 1.0, "new": 0.0, "average": 0.5}}
    assert found["confusion"] == confusion


def test_explanations_are_compared_for_the_cloned_classes(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle
) -> None:
    alike = evaluate_module(*networks, images, CONFIG, bundle, {})["similarity"]
    assert (alike["rows"], alike["columns"]) == ([*NEW], [*NEW])
    for key in ("module", "source"):
        assert all(-1 <= value <= 1 for row in alike[key] for value in row)
    assert [alike["source"][i][i] for i in range(2)] == [1.0, 1.0]  # its own reasons


def test_what_costs_too_much_or_has_no_truth_is_left_out(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, judged: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = dataclasses.replace(CONFIG, labels=False)
    assert evaluate_module(*networks, images, without, judged, {"confusion": {}}) == {}
    monkeypatch.setattr(judging, "MAX_EXPLANATION_MACS", 1.0)
    assert set(evaluate_module(*networks, images, CONFIG, judged, {"confusion": {}})) == {"worth", "confusion"}
    assert set(evaluate_module(*networks, images, CONFIG, judged, {})) == {"worth"}


def test_what_cannot_be_judged_does_not_fail_the_job(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle
) -> None:
    other = nets.network("cnn", 8, 1, OLD, width=4)
    with torch.no_grad():
        next(other[0].parameters()).add_(1)
    assert evaluate_module(other, networks[1], images, CONFIG, bundle, {}) == {}


@pytest.fixture
def dataset(zoo: Zoo, images: ImageSet, tmp_path: Path) -> DatasetRow:
    """The same images, registered."""
    path = tmp_path / "digits.parquet"
    write_parquet(path, png_rows(images), images.classes)
    with path.open("rb") as file, zoo.database.write() as session:
        up = seeds.upload(session, zoo, path.read_bytes())
        return datasets.register(session, name="digits", upload_id=up.id, contents=datasets.inspect(file))


def test_a_network_is_measured_on_all_images_of_its_classes(
    zoo: Zoo, networks: tuple[nets.Network, nets.Network], images: ImageSet, dataset: DatasetRow
) -> None:
    for network, spec in networks:
        own = images.only(spec.classes)
        right = int((predict(network, spec, own.images).argmax(1) == own.labels).sum())
        assert 0 < right < len(own)
        assert measure_accuracy(zoo, dataset, (network, spec)) == Accuracy(right / len(own), 5 * EACH, dataset.id)


def test_a_sample_is_always_the_same(
    zoo: Zoo,
    networks: tuple[nets.Network, nets.Network],
    dataset: DatasetRow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "MAX_IMAGES", 55)
    first, second = (measure_accuracy(zoo, dataset, networks[1]) for _ in range(2))
    assert first is not None
    assert (first, first.images) == (second, 55)


def test_an_accuracy_that_would_say_little_is_not_given(
    zoo: Zoo,
    networks: tuple[nets.Network, nets.Network],
    dataset: DatasetRow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measure_accuracy(zoo, dataset, nets.network("cnn", 8, 1, "01x", width=4)) is None
    assert measure_accuracy(zoo, dataset, nets.network("cnn", 8, 1, "0123", width=4)) is None  # 48 images
    monkeypatch.setattr(judging, "MAX_ACCURACY_MACS", 1e4)
    assert measure_accuracy(zoo, dataset, networks[0]) is None
