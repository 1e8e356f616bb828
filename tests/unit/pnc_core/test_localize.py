import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.extract import Tail, extract, open_tail
from pnc_core.localize import choose_channels, score_channels
from pnc_core.positions import trace
from tests.unit.pnc_core import nets


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


def _one_by_one(tail: Tail) -> dict[str, Tensor]:
    """d loss / d gate of every image, image by image: (N, width) by group."""
    rows: dict[str, list[Tensor]] = {name: [] for name in tail.gates}
    for phi, labels in _batches():
        for image, label in zip(phi, labels, strict=True):
            for gate in tail.gates.values():
                gate.mask = torch.ones(len(gate.scale), requires_grad=True)
            loss = F.cross_entropy(tail.forward(image[None])[0], label[None])
            found = torch.autograd.grad(loss, [gate.mask for gate in tail.gates.values()])
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


def test_scoring_leaves_the_tail_as_it_was() -> None:
    tail = _tail()
    before = nets.snapshot(tail.part)
    score_channels(tail, _batches(), "fisher", _seeded())
    assert all(gate.mask is None and gate.scale.grad is None for gate in tail.gates.values())
    assert all(torch.equal(before[name], tensor) for name, tensor in tail.part.state_dict().items())


@pytest.mark.parametrize("localizer", ["fisher", "taylor"])
def test_a_planted_channel_is_kept_and_dead_ones_go(localizer: str) -> None:
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


def test_random_scores_follow_the_seed_and_magnitude_needs_none() -> None:
    first, again, other = (score_channels(_tail(), [], "random", _seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.1.0"], other["blocks.1.0"])
    one, two = (score_channels(_tail(), [], "magnitude", _seeded(s)) for s in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("keep", [0.15, 0.3, 0.5, 0.75, 0.99])
def test_the_budget_holds_and_is_used_up(keep: float) -> None:
    tail = _tail()
    scores = score_channels(tail, _batches(), "fisher", _seeded())
    kept = choose_channels(tail, scores, keep)
    sizes = {name: len(k) for name, k in kept.items()}
    assert extract(tail, kept).numbers == tail.count(sizes) <= keep * tail.numbers
    assert any(tail.count({**sizes, n: sizes[n] + 1}) > keep * tail.numbers for n in sizes)
    for name, indices in kept.items():
        assert indices.tolist() == sorted(set(indices.tolist())) != []
        assert int(scores[name].argmax()) in indices.tolist()


def test_however_small_the_budget_no_group_is_emptied() -> None:
    tail = _tail()
    kept = choose_channels(tail, score_channels(tail, _batches(), "fisher", _seeded()), 1e-6)
    assert [len(k) for k in kept.values()] == [1, 1, 1]


def test_keeping_everything_keeps_everything() -> None:
    tail = _tail()
    kept = choose_channels(tail, score_channels(tail, _batches(), "fisher", _seeded()), 1.0)
    assert [len(kept[g.name]) for g in tail.groups] == [g.width for g in tail.groups]


def test_one_cloned_class_is_scored_by_its_logit() -> None:
    scores = score_channels(_tail((1,)), _batches(1), "fisher", _seeded())
    assert all(float(value.max()) > 0 for value in scores.values())
