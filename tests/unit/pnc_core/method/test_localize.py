import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Localizer
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import trace
from pnc_core.images import preprocess
from pnc_core.method import localize
from pnc_core.method.lime import VARIANTS, local_mismatch, surrogate, variants
from pnc_core.method.localize import score_channels
from pnc_core.method.mask import choose_channels
from pnc_core.module.tail import Tail, extract, open_tail
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import _split_digits, _train

LOCALIZERS = get_args(Localizer)
BY_DATA = [name for name in LOCALIZERS if name not in ("magnitude", "random")]


def _tail(classes: tuple[int, ...] = (0, 2)) -> Tail:
    network, spec = nets.network("cnn", 8, 1, width=4)
    return open_tail(trace(network, spec), "blocks.0", list(classes))


def _batches(classes: int = 2, count: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    phi = torch.randn(count, 4, 8, 8, generator=generator)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return list(zip(phi.split(4), labels.split(4), strict=True))


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _one_by_one(tail: Tail, outcome: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy) -> dict[str, Tensor]:
    """d outcome / d gate of every image, image by image: (N, width) by group."""
    rows: dict[str, list[Tensor]] = {name: [] for name in tail.gates}
    for phi, labels in _batches():
        for image, label in zip(phi, labels, strict=True):
            for gate in tail.gates.values():
                gate.mask = torch.ones(len(gate.scale), requires_grad=True)
            value = outcome(tail.forward(image[None])[0], label[None])
            found = torch.autograd.grad(value, [gate.mask for gate in tail.gates.values()])
            for name, derivative in zip(tail.gates, found, strict=True):
                rows[name].append(derivative)
    tail.mask(None)
    return {name: torch.stack(row) for name, row in rows.items()}


def test_fisher_and_taylor_equal_a_loop_over_single_images() -> None:
    tail = _tail()
    expected = _one_by_one(tail)
    fisher = score_channels(tail, _batches(), "fisher", _seeded())
    taylor = score_channels(tail, _batches(), "taylor", _seeded())
    assert fisher.keys() == {"blocks.1.0", "blocks.2.0", "blocks.3.0"}
    for name, derivatives in expected.items():
        assert torch.allclose(fisher[name], derivatives.square().mean(0), rtol=1e-4, atol=1e-9)
        assert torch.allclose(taylor[name], derivatives.mean(0).abs(), rtol=1e-4, atol=1e-7)


def test_gradient_activation_is_the_activation_times_the_slope_of_the_label_s_logit() -> None:
    tail = _tail()
    expected = _one_by_one(tail, lambda logits, label: logits[0, label[0]])
    found = score_channels(tail, _batches(), "gradient-activation", _seeded())
    for name, derivatives in expected.items():
        assert torch.allclose(found[name], derivatives.abs().mean(0), rtol=1e-4, atol=1e-9)


def _odds(logits: Tensor, label: Tensor) -> Tensor:
    p = logits.double().softmax(1)[0, label[0]]
    return (p / (1 - p)).log()


@pytest.mark.parametrize("classes", [(0, 2), (0, 1, 2)])
def test_log_odds_are_those_of_the_label_among_the_cloned_classes(classes: tuple[int, ...]) -> None:
    tail = _tail(classes)
    expected = _one_by_one(tail, _odds)
    found = score_channels(tail, _batches(), "log-odds", _seeded())
    for name, derivatives in expected.items():
        assert torch.allclose(found[name], derivatives.abs().mean(0), rtol=1e-4, atol=1e-7)


def test_log_odds_tell_channels_apart_where_the_source_is_sure_and_the_loss_does_not() -> None:
    tail = _tail()
    with torch.no_grad():
        batches = [(phi, tail.forward(phi)[0].argmax(1)) for phi, _ in _batches()]
    before = score_channels(tail, batches, "log-odds", _seeded())
    last = [module for module in tail.part.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= 1e6
        last.bias *= 1e6
    odds, fisher = (score_channels(tail, batches, name, _seeded()) for name in ("log-odds", "fisher"))
    for name, score in before.items():
        assert torch.allclose(odds[name], 1e6 * score, rtol=1e-3)
        assert score.max() > 0
        assert (fisher[name] == 0).all()


def _gauss_newton(tail: Tail, phi: Tensor) -> dict[str, Tensor]:
    """Mean over images of |dw / dg|^2 / |w|^2, coefficient by coefficient."""
    seen, total = variants(phi), {name: torch.zeros(len(gate.scale)) for name, gate in tail.gates.items()}
    for image in seen:
        for gate in tail.gates.values():
            gate.mask = torch.ones(len(gate.scale), requires_grad=True)
        masks = [gate.mask for gate in tail.gates.values()]
        local = surrogate(tail.forward(image)[0][None]).flatten()
        for coefficient in local:
            slopes = torch.autograd.grad(coefficient, masks, retain_graph=True)
            for name, slope in zip(total, slopes, strict=True):
                total[name] += slope.square() / local.detach().square().sum() / len(phi)
    tail.mask(None)
    return total


def test_lime_scores_are_the_curvature_of_the_local_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = _tail()
    phi, labels = _batches()[0]
    exact = _gauss_newton(tail, phi)
    seen, eps = variants(phi).flatten(0, 1), 0.02
    before = tail.forward(seen)[0].reshape(len(phi), VARIANTS, -1)
    for name, gate in tail.gates.items():
        gate.mask = torch.ones(len(gate.scale))
        gate.mask[1] -= eps
        closer = tail.forward(seen)[0].reshape(len(phi), VARIANTS, -1)
        # Closing a gate by eps gives the mismatch eps^2 x score, up to third order in eps.
        assert local_mismatch(before, closer).item() == pytest.approx(eps**2 * exact[name][1].item(), rel=0.1)
        gate.mask = None
    monkeypatch.setattr(localize, "LIME_PROBES", 400)
    found = score_channels(tail, [(phi, labels)], "lime", _seeded())
    for name, wanted in exact.items():
        # Variance of the estimate <= 2 score^2 / probes, so its standard error is 7 %. The bound is three of these.
        assert torch.allclose(found[name], wanted, rtol=3 * math.sqrt(2 / 400), atol=1e-9)


def test_lime_needs_no_labels_and_follows_the_seed() -> None:
    tail = _tail()
    other = [(phi, 1 - labels) for phi, labels in _batches()]
    first, again = (score_channels(tail, batches, "lime", _seeded()) for batches in (_batches(), other))
    changed = score_channels(tail, _batches(), "lime", _seeded(1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.2.0"], changed["blocks.2.0"])


def test_lime_reads_maps_with_channels_last() -> None:
    network, spec = nets.network("torchvision/swin_t", 64)
    traced = trace(network, spec)
    tail = open_tail(traced, "features.6", [0, 1])
    assert tail.axis == 3
    phi = torch.randn(2, *traced.position("features.6").shape)
    scores = score_channels(tail, [(phi, torch.tensor([0, 1]))], "lime", _seeded())
    assert all(float(value.max()) > 0 for value in scores.values())


@pytest.mark.parametrize("localizer", LOCALIZERS)
def test_scoring_leaves_the_tail_as_it_was(localizer: Localizer) -> None:
    tail = _tail()
    before = nets.snapshot(tail.part)
    scores = score_channels(tail, _batches(), localizer, _seeded())
    assert {name: (tuple(s.shape), s.dtype) for name, s in scores.items()} == {
        g.name: ((g.width,), torch.float32) for g in tail.groups
    }
    assert not any(score.requires_grad for score in scores.values())
    assert all(gate.mask is None and gate.scale.grad is None for gate in tail.gates.values())
    assert all(torch.equal(before[name], tensor) for name, tensor in tail.part.state_dict().items())


@pytest.fixture(scope="module")
def judged() -> Callable[[Localizer, int], float]:
    """Test accuracy of a source of digits, cut down to 60 % of its tail by a localizer."""
    train, test = (images.only(tuple("56789")) for images in _split_digits())
    spec = nets.spec("cnn", 8, 1, "56789", width=32)
    traced = trace(_train(spec, train), spec)
    read = Reader(traced, ["blocks.0"])
    with torch.no_grad():
        phi, judged = (read(preprocess(i.images, spec))[1]["blocks.0"] for i in (train, test))
    tail = open_tail(traced, "blocks.0", range(5))

    def accuracy(localizer: Localizer, seed: int) -> float:
        batches = list(zip(phi.split(128), train.labels.split(128), strict=True))
        small = extract(tail, choose_channels(tail, score_channels(tail, batches, localizer, _seeded(seed)), 0.6))
        with torch.no_grad():
            return float((small.forward(judged)[0].argmax(1) == test.labels).float().mean())

    return accuracy


@pytest.mark.parametrize("localizer", BY_DATA)
def test_channels_of_a_localizer_are_more_accurate_than_random_channels(
    judged: Callable[[Localizer, int], float], localizer: Localizer
) -> None:
    chance = [judged("random", seed) for seed in range(8)]
    assert judged(localizer, 0) > sum(chance) / len(chance)


@pytest.mark.parametrize("localizer", BY_DATA)
def test_a_planted_channel_is_kept_and_dead_ones_go(localizer: Localizer) -> None:
    tail = _tail()
    consumer, planted = tail.part.get_submodule("blocks.2.0"), 2
    others = [i for i in range(4) if i != planted]
    consumer.weight.data[:, others] = 0
    scores = score_channels(tail, _batches(), localizer, _seeded())["blocks.1.0"]
    assert scores[planted] > 0
    assert scores[others].tolist() == [0, 0, 0]
    kept = choose_channels(tail, {**score_channels(tail, [], "magnitude", _seeded()), "blocks.1.0": scores}, 0.3)
    assert planted in kept["blocks.1.0"].tolist()


def test_magnitude_is_the_norm_of_the_weights_that_make_a_channel() -> None:
    tail = _tail()
    weight = tail.part.get_submodule("blocks.1.0").weight
    scores = score_channels(tail, [], "magnitude", _seeded())
    assert torch.allclose(scores["blocks.1.0"], weight.square().sum((1, 2, 3)).sqrt())


def test_the_magnitude_of_a_whole_group_is_that_of_all_its_channels() -> None:
    network, spec = nets.network("torchvision/resnext50_32x4d", 32)
    tail = open_tail(trace(network, spec), "layer4.1", [0, 2])
    weight = tail.part.get_submodule("layer4.2.conv1").weight
    scores = score_channels(tail, [], "magnitude", _seeded())
    assert torch.allclose(scores["layer4.2.conv1"], weight.reshape(32, -1).square().sum(1).sqrt())


def test_random_scores_follow_the_seed_and_magnitude_needs_none() -> None:
    first, again, other = (score_channels(_tail(), [], "random", _seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.1.0"], other["blocks.1.0"])
    one, two = (score_channels(_tail(), [], "magnitude", _seeded(s)) for s in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_one_cloned_class_is_scored_by_its_logit() -> None:
    scores = score_channels(_tail((1,)), _batches(1), "fisher", _seeded())
    assert all(float(value.max()) > 0 for value in scores.values())
