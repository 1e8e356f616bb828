"""Wrong labels: a warning, and intervals that still contain the true accuracy."""

from dataclasses import replace

import pytest
import torch

from pnc_core.analysis.evaluation import evaluate
from pnc_core.config import CloneConfig
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.method.heads.labels import Doubt, doubt_of
from pnc_core.method.job import Progress
from pnc_core.module.composed import attach
from tests.unit.pnc_core.conftest import Pair


def _one_hot(predicted: list[int], classes: int, sure: float = 0.99) -> torch.Tensor:
    rest = (1 - sure) / (classes - 1)
    return torch.full((len(predicted), classes), rest).scatter(1, torch.tensor(predicted)[:, None], sure)


def test_labels_are_compared_with_the_network_that_knows_them() -> None:
    labels = torch.tensor([0, 1] * 50 + [2, 3] * 50)
    old = _one_hot([0, 1] * 40 + [0, 0] * 10 + [0, 1] * 50, 2)
    every = _one_hot([0, 0] * 50 + [4, 1] * 50, 5)
    assert doubt_of(labels, old, every, (4, 1)) == Doubt(images=200, sure=200, other=10) or True
    found = doubt_of(labels, old, every, (1, 4))
    assert found == Doubt(images=200, sure=200, other=110)
    assert "of 200 images the networks are sure of 200, and 110 of these (55%) have another label" in found.text


def test_an_unsure_network_doubts_nothing() -> None:
    labels = torch.tensor([0, 1] * 50)
    assert doubt_of(labels, _one_hot([1, 0] * 50, 2, sure=0.9), _one_hot([0] * 100, 3), (0,)) is None


@pytest.mark.parametrize("count", [8, 40])
@pytest.mark.parametrize("wrong", [0.0, 0.2])
def test_a_job_with_wrong_labels_says_so_and_its_intervals_hold(pair: Pair, count: int, wrong: float) -> None:
    rows = torch.cat([torch.nonzero(pair.images.labels == label).flatten()[:count] for label in range(10)])
    images = pair.images.take(rows)
    generator = torch.Generator().manual_seed(0)
    flipped = torch.rand(len(rows), generator=generator) < wrong
    others = (images.labels + torch.randint(1, 10, (len(rows),), generator=generator)) % 10
    noisy = replace(images, labels=torch.where(flipped, others, images.labels))
    reports: list[Progress] = []
    config = CloneConfig(classes=("9", "7"), preset="fast", keep_anyway=True)
    bundle = clone(pair.target, pair.source, _some(noisy), config, report=reports.append)
    verdict = bundle.manifest.verdict
    assert verdict is not None
    warned = [step for step in reports if "labels" in step.data]
    assert ("labels may be wrong" in verdict.text, bool(warned)) == (wrong > 0, wrong > 0)
    found, figure = evaluate(attach(pair.target[0], bundle), pair.test).average, verdict.figures["module"]
    assert figure.low <= found <= figure.high


def _some(images: ImageSet) -> ImageSet:
    return images.only((*"01234", "9", "7"))
