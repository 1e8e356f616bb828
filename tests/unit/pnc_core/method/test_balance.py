import copy
import math

import pytest
import torch

from pnc_core.analysis.evaluation import evaluate, predict
from pnc_core.config import NetworkSpec, Position
from pnc_core.errors import ConfigError, DataError, MismatchError
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet, preprocess
from pnc_core.method.balance import WEIGHT_DECAY, rebalance
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import Composed, attach, detach
from pnc_core.module.export import to_program
from pnc_core.module.head import Head, pool_taps
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

MIDDLE = Position(target="blocks.1", source="blocks.1")


def _second_source(pair: Pair) -> tuple[torch.nn.Module, NetworkSpec]:
    """Another network for the same classes: the source with small random changes of its weights."""
    network = copy.deepcopy(pair.source[0])
    for parameter in network.parameters():
        parameter.data.mul_(1.05)
    return network, pair.source[1]


def _module(pair: Pair, name: str, source: tuple[torch.nn.Module, NetworkSpec] | None = None, **more: float) -> Bundle:
    return nets.hand_made(pair.target, source or pair.source, pair.images, MIDDLE, (name,), "router", **more)


def test_a_class_from_two_sources_has_the_mean_of_their_odds(pair: Pair) -> None:
    one, two = _module(pair, "9"), _module(pair, "9", _second_source(pair))
    x = preprocess(pair.test.images[:16], pair.target[1])
    both = attach(attach(pair.target[0], one), two)
    assert both.classes == (*pair.target[1].classes, "9")
    with torch.no_grad():
        a, b = (attach(pair.target[0], bundle)(x)[:, 5] for bundle in (one, two))
        assert not torch.allclose(a, b)
        assert torch.allclose(both(x)[:, 5].exp(), (a.exp() + b.exp()) / 2, rtol=1e-4)
        assert torch.equal(both(x)[:, :5], pair.target[0](x))


def test_the_order_of_two_sources_changes_no_bit(pair: Pair) -> None:
    one, two, three = _module(pair, "9"), _module(pair, "9", _second_source(pair)), _module(pair, "7")
    x = preprocess(pair.test.images[:16], pair.target[1])
    with torch.no_grad():
        first = attach(attach(attach(pair.target[0], one), two), three)
        last = attach(attach(attach(pair.target[0], three), two), one)
        columns = [last.classes.index(name) for name in first.classes]
        assert torch.equal(first(x), last(x)[:, columns])


def test_a_class_twice_from_one_source_is_refused(pair: Pair) -> None:
    with pytest.raises(MismatchError, match=r"got \['9'\]"):
        attach(attach(pair.target[0], _module(pair, "9")), _module(pair, "9", offset=1.0))


def test_detaching_takes_the_class_away_whoever_brought_it(pair: Pair) -> None:
    both = attach(attach(pair.target[0], _module(pair, "9")), _module(pair, "9", _second_source(pair)))
    assert detach(both, ["9"]) is pair.target[0]


def test_rebalancing_corrects_a_module_of_too_large_logits(pair: Pair) -> None:
    loud, fair = _module(pair, "9", offset=30.0), _module(pair, "7")
    composed = attach(attach(pair.target[0], loud), fair)
    reconstructed = rebalance(composed, pair.images)
    before, after = evaluate(composed, pair.test), evaluate(reconstructed, pair.test)
    assert after.average > before.average + 0.1
    assert after.old > 0.8
    assert reconstructed.balance[0] != (1.0, 0.0)


def test_a_class_of_two_modules_is_rebalanced_as_it_is_run(pair: Pair) -> None:
    loud, fair = _module(pair, "9", offset=30.0), _module(pair, "9", _second_source(pair))
    composed = attach(attach(pair.target[0], fair), loud)
    reconstructed = rebalance(composed, pair.images)
    assert evaluate(reconstructed, pair.test).average > evaluate(composed, pair.test).average + 0.1
    best = _loss(reconstructed, pair.images)
    for module in (0, 1):
        for change in (-0.5, 0.5):
            balance = [list(numbers) for numbers in reconstructed.balance]
            balance[module][1] += change
            moved = Composed(
                reconstructed.target, reconstructed.traced, reconstructed.attached, [(s, o) for s, o in balance]
            )
            assert _loss(moved, pair.images) > best - 1e-6


def _loss(composed: Composed, images: ImageSet, weights: float = 0.0) -> float:
    """The loss that rebalancing minimises, from the network's logits; `weights`: squared norm of the common head."""
    used = images.only(composed.classes)
    logits = predict(composed, composed.traced.spec, used.images).double()
    losses = torch.nn.functional.cross_entropy(logits, used.labels, reduction="none")
    by_class = torch.stack([losses[used.labels == c].mean() for c in range(len(composed.classes))]).mean()
    return float(by_class) + WEIGHT_DECAY * (weights + sum(math.log(s) ** 2 + o**2 for s, o in composed.balance))


def test_the_order_inside_a_module_and_of_the_old_stays(pair: Pair) -> None:
    bundle = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9", "7"), "router", offset=5.0)
    composed = attach(pair.target[0], bundle)
    reconstructed = rebalance(composed, pair.images)
    assert reconstructed.balance != composed.balance
    one, two = (predict(c, pair.target[1], pair.test.images) for c in (composed, reconstructed))
    assert torch.equal(one[:, :5], two[:, :5])
    assert torch.equal(one[:, 5:].argmax(1), two[:, 5:].argmax(1))


def test_attaching_one_more_starts_anew(pair: Pair) -> None:
    reconstructed = rebalance(attach(pair.target[0], _module(pair, "9", offset=5.0)), pair.images)
    assert attach(reconstructed, _module(pair, "7")).balance == ((1.0, 0.0), (1.0, 0.0))


def test_images_of_every_module_are_needed(pair: Pair) -> None:
    composed = attach(attach(pair.target[0], _module(pair, "9")), _module(pair, "7"))
    with pytest.raises(DataError, match="got none"):
        rebalance(composed, pair.images.only(tuple("012349")))
    with pytest.raises(DataError, match=r"'0', '1'.+ got none"):
        rebalance(composed, pair.images.only(("9", "7")))


@pytest.fixture(scope="module")
def strangers(pair: Pair) -> Composed:
    """Two modules of different classes, each with a correction of the old logits."""
    bundles = (nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, (c,), "joint") for c in ("9", "7"))
    return attach(attach(pair.target[0], next(bundles)), next(bundles))


@pytest.fixture(scope="module")
def shared(strangers: Composed, pair: Pair) -> Composed:
    return rebalance(strangers, pair.images, head="joint")


def test_a_common_head_tells_more_than_scales_and_offsets(strangers: Composed, shared: Composed, pair: Pair) -> None:
    plain = rebalance(strangers, pair.images)
    assert plain.common is None
    assert evaluate(shared, pair.test).average > evaluate(plain, pair.test).average + 0.05


def test_a_common_head_stands_in_for_the_modules_own_corrections(shared: Composed, pair: Pair) -> None:
    x = preprocess(pair.test.images[:16], pair.target[1])
    head = shared.common
    assert isinstance(head, Head)
    with torch.no_grad():
        old, activations = shared._read(x)
        own = [own * s + o for (_, own), (s, o) in zip(shared.answers(old, activations), shared.balance, strict=True)]
        taps = [p for p in shared.traced.positions if p.name != "input"]
        features = pool_taps([activations[p.name] for p in taps], [p.axis for p in taps], 1)
        expected = torch.cat([pair.target[0](x), *own], 1) + features @ head.weight.T + head.bias
        assert torch.allclose(shared(x), expected, atol=1e-4)


def test_what_a_common_head_learned_is_the_minimum(shared: Composed, pair: Pair) -> None:
    with torch.no_grad():
        _, activations = shared._read(preprocess(pair.images.only(shared.classes).images, pair.target[1]))
        spread = shared.pooled(activations).double().std(0).clamp_min(1e-6)

    def loss(network: Composed) -> float:
        standardised = network.common.weight.double() * spread  # type: ignore[union-attr, operator]
        return _loss(network, pair.images, float(standardised.square().sum()))

    best, generator = loss(shared), torch.Generator().manual_seed(0)
    for _ in range(4):
        moved = copy.deepcopy(shared.common)
        assert isinstance(moved, Head)
        step = torch.randn(moved.weight.shape, generator=generator, dtype=torch.float64)
        moved.weight.data.add_((0.01 * step / spread).float())
        assert loss(Composed(shared.target, shared.traced, shared.attached, shared.balance, moved)) > best


def test_views_are_learned_from_too_and_drawn_by_the_seed(strangers: Composed, pair: Pair) -> None:
    few = pair.images.sample(60, torch.Generator().manual_seed(1))
    one, again, other = (
        rebalance(strangers, few, head="joint", augmentation="shift", seed=seed).common for seed in (0, 0, 1)
    )
    assert torch.equal(one.weight, again.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.allclose(one.weight, other.weight)  # type: ignore[union-attr, arg-type]


def test_a_common_head_goes_with_the_set_of_modules(shared: Composed, pair: Pair) -> None:
    before = fingerprint(pair.target[0])
    one = detach(shared, ["7"])
    assert isinstance(one, Composed)
    assert (one.common, one.balance) == (None, ((1.0, 0.0),))
    assert detach(shared) is pair.target[0]
    assert fingerprint(pair.target[0]) == before


def test_a_common_head_is_exported_with_the_rest(shared: Composed, pair: Pair) -> None:
    x = preprocess(pair.test.images[:7], pair.target[1])
    with torch.no_grad():
        assert torch.allclose(to_program(shared, pair.target[1]).module()(x), shared(x), atol=1e-4)


def test_old_answers_of_strict_modules_are_not_corrected(pair: Pair) -> None:
    strict = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9",), "router", locality_gate=0.0)
    composed = attach(pair.target[0], strict)
    with pytest.raises(MismatchError, match="affine beside modules of strict locality"):
        rebalance(composed, pair.images, head="joint")
    assert rebalance(composed, pair.images).common is None


@pytest.mark.parametrize("wrong", [{"head": "router"}, {"augmentation": "flip"}])
def test_what_is_not_known_is_refused(strangers: Composed, pair: Pair, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        rebalance(strangers, pair.images, **wrong)  # type: ignore[arg-type]
