"""What people are shown of a module is counted on held-out images, and on all of them."""

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
from pnc_core.analysis.evaluation import direct_ensembles, evaluate, predict
from pnc_core.config import CloneConfig, Position
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach
from tests.unit import seeds
from tests.unit.pnc_core import nets
from workers import judging
from workers.judging import evaluate_module, measure_accuracy

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


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[ImageSet]:
    """The images that the job held out, once something was judged."""
    images: list[ImageSet] = []
    real = judging._confusion
    monkeypatch.setattr(judging, "_confusion", lambda composed, held: images.append(held) or real(composed, held))
    return images


def test_every_held_out_image_is_in_both_confusions(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle
) -> None:
    before = [fingerprint(network) for network, _ in networks]
    found = evaluate_module(*networks, images, CONFIG, bundle)
    assert [fingerprint(network) for network, _ in networks] == before
    confusion = found["confusion"]
    assert confusion["classes"] == [*OLD, *NEW]
    for key in ("before", "after"):
        assert [sum(row) for row in confusion[key]] == [EACH * 0.25] * 7
    assert all(row[5:] == [0, 0] for row in confusion["before"])  # the target alone knows only its own


def test_the_counts_are_those_of_the_evaluation(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle, seen: list[ImageSet]
) -> None:
    counts = evaluate_module(*networks, images, CONFIG, bundle)["confusion"]
    expected = evaluate(attach(networks[0][0], bundle), seen[0])
    old = [sum(counts["before"][i][i] for i in range(5)), sum(map(sum, counts["before"][:5]))]
    assert expected.target_old == pytest.approx(old[0] / old[1])


def test_the_rivals_are_the_target_alone_and_the_better_ensemble(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle, seen: list[ImageSet]
) -> None:
    worth = evaluate_module(*networks, images, CONFIG, bundle)["worth"]
    both = direct_ensembles(*networks, NEW, seen[0])
    assert worth["ensemble"]["average"] == pytest.approx(max(found.average for found in both.values()), abs=1e-6)
    old = both["raw"].target_old
    assert worth["alone"] == pytest.approx({"old": old, "new": 0, "average": old / 2})


def test_explanations_are_compared_for_the_cloned_classes(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle
) -> None:
    alike = evaluate_module(*networks, images, CONFIG, bundle)["similarity"]
    assert (alike["rows"], alike["columns"]) == ([*NEW], [*NEW])
    for key in ("module", "source"):
        assert all(-1 <= value <= 1 for row in alike[key] for value in row)
    assert [alike["source"][i][i] for i in range(2)] == [1.0, 1.0]  # its own reasons


def test_what_costs_too_much_or_has_no_truth_is_left_out(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate_module(*networks, images, dataclasses.replace(CONFIG, labels=False), bundle) == {}
    monkeypatch.setattr(judging, "MAX_EXPLANATION_MACS", 1.0)
    assert set(evaluate_module(*networks, images, CONFIG, bundle)) == {"worth", "confusion"}
    monkeypatch.setattr(judging, "MAX_CLASSES", 6)
    assert set(evaluate_module(*networks, images, CONFIG, bundle)) == {"worth"}
    monkeypatch.setattr(judging, "MAX_ACCURACY_MACS", 1.0)
    assert evaluate_module(*networks, images, CONFIG, bundle) == {}


def test_what_cannot_be_judged_does_not_fail_the_job(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle
) -> None:
    other = nets.network("cnn", 8, 1, OLD, width=4)
    with torch.no_grad():
        next(other[0].parameters()).add_(1)
    assert evaluate_module(other, networks[1], images, CONFIG, bundle) == {}


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
