from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pnc_core.analysis.evaluation import evaluate, predict
from pnc_core.errors import Cancelled, ConfigError, DataError, MismatchError, TargetMismatch, WorseThanNone
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.balance import rebalance
from pnc_core.method.composing import compose as composing
from pnc_core.method.composing.compose import compose
from pnc_core.module.composed import Composed, attach, detach
from pnc_core.module.composition import Composition, read_composition
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair
from tests.unit.pnc_core.method.composing.conftest import MIDDLE, MOST, Set


def test_a_composition_corrects_a_module_of_too_large_logits(pair: Pair, both: Set, fitted: Composition) -> None:
    plain, composed = attach(pair.target[0], both.bundles), attach(pair.target[0], both.bundles, composition=fitted)
    assert evaluate(composed, pair.test).average > evaluate(plain, pair.test).average + 0.3
    assert fitted.manifest.verdict is not None
    figures = fitted.manifest.verdict.figures
    assert set(figures) == {"module", "plain", "ensemble", "probe", "alone"}
    assert all(0 <= one.low <= one.average <= one.high <= 1 for one in figures.values())
    assert figures["module"].low > figures["plain"].high
    # Cross-fitted accuracy and accuracy on other images are estimates of one quantity; both intervals are 90 %.
    assert abs(figures["module"].average - evaluate(composed, pair.test).average) < 0.1


def test_its_numbers_are_those_of_rebalancing(pair: Pair, both: Set, fitted: Composition) -> None:
    expected = rebalance(attach(pair.target[0], both.bundles), both.images.without_copies())
    composed = attach(pair.target[0], both.bundles, composition=fitted)
    for one, other in zip(composed.balance, expected.balance, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_the_order_of_attaching_does_not_matter(pair: Pair, both: Set, first: Composition) -> None:
    joint = compose(pair.target, both.bundles, both.images, head="joint")
    one = attach(pair.target[0], both.bundles, composition=joint)
    two = attach(pair.target[0], both.bundles[::-1], composition=joint)
    columns = [two.classes.index(name) for name in one.classes]
    logits = [predict(network, pair.target[1], pair.test.images[:16]) for network in (one, two)]
    assert torch.equal(logits[0], logits[1][:, columns])


def test_the_target_stays_bit_for_bit(pair: Pair, both: Set) -> None:
    before, answers = fingerprint(pair.target[0]), predict(*pair.target, pair.test.images[:16])
    made = compose(pair.target, both.bundles, both.images, head="joint", keep_anyway=True)
    composed = attach(pair.target[0], both.bundles, composition=made)
    assert detach(composed) is pair.target[0]
    assert fingerprint(pair.target[0]) == before
    assert torch.equal(predict(*pair.target, pair.test.images[:16]), answers)


def test_it_fits_exactly_its_set_and_its_target(pair: Pair, both: Set, fitted: Composition) -> None:
    with pytest.raises(MismatchError, match="expected exactly the modules"):
        attach(pair.target[0], both.bundles[:1], composition=fitted)
    whole = attach(pair.target[0], both.bundles, composition=fitted)
    left = detach(whole, ["7"])
    assert isinstance(left, Composed)
    assert left.balance == ((1.0, 0.0),)
    other, spec = nets.network("cnn", 8, 1, "01234", width=8)
    with pytest.raises(TargetMismatch):
        attach(other, both.bundles, spec=spec, composition=fitted)


def test_a_thin_bundle_is_the_same_module(pair: Pair, both: Set, fitted: Composition) -> None:
    thin = [bundle.thin() for bundle in both.bundles]
    one = attach(pair.target[0], thin, [pair.source[0]] * 2, composition=fitted)
    two = attach(pair.target[0], both.bundles, composition=fitted)
    logits = [predict(network, pair.target[1], pair.test.images[:8]) for network in (one, two)]
    assert torch.allclose(*logits, atol=1e-5)


def test_a_ridge_head_is_exported_and_read_like_any_other(
    pair: Pair, both: Set, first: Composition, tmp_path: Path
) -> None:
    first.write(tmp_path / "one.safetensors")
    again = read_composition(tmp_path / "one.safetensors")
    assert again.to_bytes() == first.to_bytes()
    composed = attach(pair.target[0], both.bundles[0], composition=again)
    assert [tap.name for tap in composed.common_taps] == [composed.traced.taps[-1].name]
    assert evaluate(composed, pair.test).old > 0.8


def test_without_sources_there_is_no_ensemble_and_few_images_leave_no_sums(pair: Pair, both: Set) -> None:
    few = ImageSet(*_first_of_each(both.images, 9), both.images.classes)
    made = compose(pair.target, both.bundles, few)
    assert made.manifest.verdict is not None
    assert "ensemble" not in made.manifest.verdict.figures
    assert made.manifest.ridge is None
    assert "show no single image" in made.manifest.without_ridge
    assert not [name for name in made.tensors if name.startswith("ridge.")]
    with pytest.raises(DataError, match="show no single image"):
        compose(pair.target, both.bundles, few, head="ridge")


def _first_of_each(images: ImageSet, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.cat([torch.nonzero(images.labels == c).flatten()[:count] for c in range(len(images.classes))])
    return images.images[rows], images.labels[rows]


def test_a_composition_that_is_surely_worse_is_refused(pair: Pair, both: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is turned to the wrong classes: a true fit is never much worse than its own start."""
    fit = composing.fit_numbers

    def wrong(*arguments: object) -> composing.Numbers:
        made = fit(*arguments)  # type: ignore[arg-type]
        assert made.weight is not None
        assert made.bias is not None
        return replace(made, weight=-20 * made.weight, bias=-20 * made.bias)

    monkeypatch.setattr(composing, "fit_numbers", wrong)
    with pytest.raises(WorseThanNone, match="modules without a composition"):
        compose(pair.target, both.bundles[1:], both.images, head="ridge", most_features=MOST)
    anyway = compose(pair.target, both.bundles[1:], both.images, head="ridge", most_features=MOST, keep_anyway=True)
    assert anyway.manifest.verdict is not None
    assert anyway.manifest.verdict.figures["module"].high < anyway.manifest.verdict.figures["plain"].low


def test_wrong_input_is_refused(pair: Pair, both: Set) -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        compose(pair.target, both.bundles, both.images, head="router")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one"):
        compose(pair.target, [], both.images)
    with pytest.raises(DataError, match="got none"):
        compose(pair.target, both.bundles, both.images.only((*"01234", "9")))
    strict = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9",), "router", locality_gate=0.0)
    with pytest.raises(MismatchError, match="strict locality"):
        compose(pair.target, [strict], both.images, head="ridge", most_features=MOST)


def test_it_reports_and_can_be_cancelled(pair: Pair, both: Set) -> None:
    steps: list[float] = []

    def cancelled() -> bool:
        return len(steps) > 1

    with pytest.raises(Cancelled):
        compose(
            pair.target, both.bundles, both.images, report=lambda step: steps.append(step.done), cancelled=cancelled
        )
    assert steps == sorted(steps)
