import math

import pytest
import torch
from torch import Tensor, nn

from pnc_core.analysis.evaluation import (
    Evaluation,
    direct_ensembles,
    evaluate,
    locality_gain,
    multiply_accumulates,
    oracle,
    predict,
)
from pnc_core.errors import DataError
from pnc_core.images import ImageSet, preprocess
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair


class _Says(nn.Module):
    """A network whose logit of class i is pixel i."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.count]


class _Composed(_Says):
    """The attributes of a composed network that `evaluate` reads."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(len(old + new))
        self.target, self.classes = _Says(len(old)), tuple(old + new)
        self.traced = type("Traced", (), {"spec": nets.spec("cnn", 4, 1, old)})()


def _images(winners: list[int], labels: list[int], classes: str, seconds: list[int] | None = None) -> ImageSet:
    images = torch.zeros(len(winners), 1, 4, 4, dtype=torch.uint8)
    for row, (first, second) in enumerate(zip(winners, seconds or winners, strict=True)):
        images[row].view(-1)[second] = 100
        images[row].view(-1)[first] = 200
    return ImageSet(images, torch.tensor(labels), tuple(classes))


def test_locality_and_leak_of_a_network_made_by_hand() -> None:
    # Classes a b c are old, d is new. Five old images: right, right, wrong but equal to the target's prediction,
    # and two predicted as d, where the target alone predicts b (right) and c (wrong). Two new images: right, wrong.
    images = _images(
        winners=[0, 1, 2, 3, 3, 3, 0],
        seconds=[0, 1, 2, 1, 2, 3, 0],
        labels=[0, 1, 0, 1, 1, 3, 3],
        classes="abcd",
    )
    found = evaluate(_Composed("abc", "d"), images)
    assert found.target_old == pytest.approx(3 / 5)
    assert found.old == pytest.approx(2 / 5)
    assert found.new == pytest.approx(1 / 2)
    assert found.average == pytest.approx((2 / 5 + 1 / 2) / 2)
    assert found.locality == pytest.approx(3 / 5)
    assert found.leak == pytest.approx(2 / 5)


def test_images_of_other_classes_are_left_out() -> None:
    images = _images([0, 1, 3], [1, 2, 4], "xabcd")
    assert evaluate(_Composed("abc", "d"), images).average == 1
    with pytest.raises(DataError, match=r"expected some of .+ got only images of \('x', 'y'\)"):
        evaluate(_Composed("abc", "d"), _images([0, 1], [0, 1], "xy"))


def test_the_oracle_lets_only_classes_of_the_image_s_own_side_compete() -> None:
    # Old classes a b, new c d. The first two are predicted on the wrong side, and right within their side; the third is
    # wrong within its side too, the last is right in both.
    logits = torch.tensor([[1.0, 0, 9, 0], [9, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    found = oracle(logits, torch.tensor([0, 3, 0, 2]), 2)
    assert (found.old, found.new, found.average) == (1 / 2, 1, 3 / 4)


def test_the_oracle_of_one_side_only_knows_nothing_of_the_other() -> None:
    found = oracle(torch.eye(3), torch.tensor([0, 1, 1]), 2)
    assert found.old == pytest.approx(2 / 3)
    assert found.new is None


@pytest.mark.parametrize(
    ("old", "new", "wanted"), [(1.0, 0.5, 2 / 3), (0.8, 0.8, 0.8), (0.9, 0.0, 0.0), (0.0, 0.0, 0.0)]
)
def test_the_harmonic_mean_is_lost_with_one_side(old: float, new: float, wanted: float) -> None:
    found = Evaluation(target_old=1, old=old, new=new, average=0, all=0, locality=1, leak=0)
    assert found.harmonic == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("ours", "tuned", "gain"), [(0.9, 0.8, 0.5), (1.0, 0.8, 1.0), (0.8, 0.8, 0.0), (0.7, 0.8, -0.5)]
)
def test_the_gain_over_fine_tuning_is_the_share_of_its_disturbance_that_is_saved(
    ours: float, tuned: float, gain: float
) -> None:
    assert locality_gain(ours, tuned) == pytest.approx(gain)


def test_there_is_no_gain_over_a_fine_tuning_that_disturbs_nothing() -> None:
    assert math.isnan(locality_gain(0.9, 1.0))


def test_a_direct_ensemble_lays_the_logits_side_by_side() -> None:
    target, source = (_Says(2), nets.spec("cnn", 4, 1, "ab")), (_Says(4), nets.spec("cnn", 4, 1, "wxyz"))
    images = _images([0, 1, 3, 2], [0, 1, 2, 3], "abzy")
    found = direct_ensembles(target, source, ("z", "y"), images)["raw"]
    assert (found.old, found.new) == (1, 1)


def test_softmax_compares_probabilities_among_all_classes_of_either() -> None:
    class _Fixed(nn.Module):
        def __init__(self, *logits: float) -> None:
            super().__init__()
            self.logits = torch.tensor([logits])

        def forward(self, x: Tensor) -> Tensor:
            return self.logits.expand(len(x), -1)

    target = (_Fixed(1.0, 0.0), nets.spec("cnn", 4, 1, "ab"))
    source = (_Fixed(9.0, 5.0, 4.9), nets.spec("cnn", 4, 1, "xyz"))
    images = _images([0, 0], [0, 1], "ay")
    found = direct_ensembles(target, source, ("y", "z"), images)
    raw, calm = found["raw"], found["softmax"]
    assert (raw.old, raw.new) == (0, 1)
    assert (calm.old, calm.new) == (1, 0)
    single = direct_ensembles(target, source, ("y",), images)["softmax"]
    assert (single.old, single.new) == (1, 0)


def test_predictions_are_the_network_s_own(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    images = pair.test.images[:300]
    composed = attach(pair.target[0], by_hand["router"])
    for network in (pair.target[0], composed):
        with torch.no_grad():
            parts = [network(preprocess(part, pair.target[1])) for part in images.split(256)]
        assert torch.equal(predict(network, pair.target[1], images), torch.cat(parts))


def test_multiply_accumulates_of_a_known_network() -> None:
    network, spec = nets.network("cnn", 8, 1, classes="ab", width=2)
    by_hand = 64 * 9 * (1 * 2 + 2 * 2) + 16 * 9 * 2 * 4 + 4 * 9 * 4 * 8 + 8 * 2
    assert multiply_accumulates(network, spec) == by_hand


class _LocalityGate(nn.Module):
    """Runs its second layer for bright images only, as a strict module does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        bright = x.mean(1) > 0
        if bright.any():
            self.second(x[bright])
        return self.first(x)


def test_multiply_accumulates_of_images_are_the_mean_over_those_that_a_module_is_run_for() -> None:
    spec = nets.network("cnn", 2, 1, classes="ab", width=2)[1]
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    images[0] = 255
    assert multiply_accumulates(_LocalityGate(), spec, images) == 4 * 2 + 4 * 3 // 4
    assert multiply_accumulates(_LocalityGate(), spec, images[1:]) == 4 * 2
