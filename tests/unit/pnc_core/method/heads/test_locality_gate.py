import math

import pytest
import torch

from pnc_core.method.heads.choose import HeadChoice, choose_head
from pnc_core.method.heads.fit import HeadInputs, accuracy, head_logits
from pnc_core.method.heads.locality_gate import MIN_GAP, threshold_below, with_locality_gate
from tests.unit.pnc_core.method.heads.inputs import FEATURES, NEW, OLD, inputs


@pytest.mark.parametrize("share", [0.0, 0.02, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 11, 51, 100, 101])
def test_a_threshold_is_at_the_quantile_and_on_no_value(count: int, share: float) -> None:
    values = 5 * torch.rand(count, generator=torch.Generator().manual_seed(count))
    bar, ordered = threshold_below(values, share), values.sort().values
    index = math.ceil(share * (count - 1))
    assert int((values > bar).sum()) == count - index
    assert float((values - bar).abs().min()) > 0.4 * MIN_GAP
    if index:
        assert float(bar) == pytest.approx(float(ordered[index - 1] + ordered[index]) / 2)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_no_threshold_lies_between_equal_values(size: float) -> None:
    """Equal images may get slightly different scores on another processor."""
    values = size * torch.tensor([1.0, 2.0, 2.0, 2.0000002, 3.0])
    bar = threshold_below(values, 0.5)
    assert int((values > bar).sum()) == 4
    assert float((values - bar).abs().min()) > 0.4 * size
    alone = torch.full((7,), size)
    assert int((alone > threshold_below(alone, 0.5)).sum()) == 7


def test_the_score_behind_a_locality_gate_is_that_of_the_head_without_held_out_images() -> None:
    noise = _noise(24, 0), _noise(24, 1)
    fitted = choose_head([HeadChoice("router", 1, *noise)])
    again = accuracy(head_logits(fitted.head, noise[1]), noise[1].labels, OLD)
    strict = with_locality_gate(fitted, *noise, seen=30)
    assert again.average > fitted.score.average + 0.2  # the refitted head overfits the held-out images
    assert strict.head.strict
    assert strict.score.average <= fitted.score.average
    assert torch.equal(strict.head.weight, fitted.head.weight)
    assert torch.equal(strict.judged.shutter_weight, strict.head.shutter_weight)


def _noise(count: int, seed: int) -> HeadInputs:
    """Both networks are equally sure, and the taps are noise: old and new cannot be separated."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % (OLD + NEW)
    logits = torch.nn.functional.one_hot(labels, OLD + NEW).float() * 6
    logits[labels < OLD, OLD], logits[labels >= OLD, 0] = 6, 6
    return HeadInputs(logits[:, :OLD], logits[:, OLD:], torch.randn(count, 60, generator=generator), labels)


@pytest.mark.parametrize("count", [5, 10, 130, 255])
def test_no_held_out_image_is_on_the_threshold_of_a_locality_gate(count: int) -> None:
    """A small job holds out one new image. With a threshold at its score, rounding would decide."""
    train, held = inputs(300), inputs(count, seed=1)
    strict = with_locality_gate(choose_head([HeadChoice("router", 1, train, held)]), train, held, seen=FEATURES)
    new = held.features[held.labels >= OLD].double()
    weight = strict.head.shutter_weight.double()
    verdict = new @ weight + strict.head.shutter_bias.double()
    rounding = FEATURES * torch.finfo().eps * float((new.abs() @ weight.abs()).max())
    assert float(verdict.abs().min()) > 5 * rounding
    assert int((verdict < 0).sum()) <= math.ceil(0.02 * len(new))
