import pytest
import torch

from pnc_core.method.mask import REFRESH, LearnedMask, choose_channels
from pnc_core.module.tail import Tail, extract
from tests.unit.pnc_core import nets


def _opened() -> tuple[Tail, torch.Tensor]:
    tail, _, _, x = nets.opened("resnet20", 16, 2)
    return tail, x


def _scores(tail: Tail, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.width, generator=generator) ** 8 for g in tail.groups}


def test_the_mask_starts_with_the_channels_of_highest_score() -> None:
    tail, _ = _opened()
    found, wanted = LearnedMask(tail, _scores(tail), 0.4).kept(), choose_channels(tail, _scores(tail), 0.4)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_mask_of_a_step_is_that_of_the_kept_channels() -> None:
    tail, x = _opened()
    mask = LearnedMask(tail, _scores(tail), 0.4)
    mask.apply()
    with torch.no_grad():
        soft, _ = tail.forward(x)
        tail.mask(mask.kept())
        assert torch.allclose(tail.forward(x)[0], soft, atol=1e-5)


def test_every_channel_learns_and_the_budget_always_holds() -> None:
    tail, x = _opened()
    mask = LearnedMask(tail, _scores(tail), 0.4)
    before = mask.kept()
    optimizer = torch.optim.SGD(mask.parameters(), lr=1)
    for _ in range(2 * REFRESH):
        mask.apply()
        optimizer.zero_grad()
        tail.forward(x)[0].square().sum().backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in mask.parameters())
        for parameter in mask.parameters():
            parameter.grad /= parameter.grad.abs().max()
        optimizer.step()
        sizes = {name: len(kept) for name, kept in mask.kept().items()}
        assert tail.count(sizes) <= 0.4 * tail.parameter_count
    assert any(not torch.equal(before[name], kept) for name, kept in mask.kept().items())


def test_a_removed_channel_is_chosen_again_when_its_importance_grows() -> None:
    tail, _ = _opened()
    mask = LearnedMask(tail, _scores(tail), 0.4)
    name = tail.groups[0].name
    shut = next(c for c in range(tail.groups[0].width) if c not in mask.kept()[name].tolist())
    mask.parameters()[0].data[shut] = 10
    assert shut in mask.kept()[name].tolist()


@pytest.mark.parametrize("keep", [0.2, 1.0])
def test_the_kept_share_is_near_the_budget(keep: float) -> None:
    tail, _ = _opened()
    sizes = {name: len(kept) for name, kept in LearnedMask(tail, _scores(tail), keep).kept().items()}
    assert 0.9 * keep * tail.parameter_count < tail.count(sizes) <= keep * tail.parameter_count


def test_from_wrong_scores_the_mask_learns_the_right_channels() -> None:
    tail, x = _opened()
    with torch.no_grad():
        tail.mask(choose_channels(tail, _scores(tail, 1), 0.4))
        wanted, _ = tail.forward(x)
    mask = LearnedMask(tail, _scores(tail), 0.4)

    def mismatch() -> float:
        with torch.no_grad():
            tail.mask(mask.kept())
            return float((tail.forward(x)[0] - wanted).square().mean())

    before = mismatch()
    optimizer = torch.optim.Adam(mask.parameters(), lr=0.05)
    for _ in range(20 * REFRESH):
        mask.apply()
        optimizer.zero_grad()
        (tail.forward(x)[0] - wanted).square().mean().backward()
        optimizer.step()
    assert mismatch() < 0.5 * before


@pytest.mark.parametrize("keep", [0.15, 0.3, 0.5, 0.75, 0.99])
def test_the_budget_holds_and_is_used_up(keep: float) -> None:
    tail, _ = _opened()
    scores = _scores(tail)
    kept = choose_channels(tail, scores, keep)
    sizes = {name: len(k) for name, k in kept.items()}
    assert extract(tail, kept).parameter_count == tail.count(sizes) <= keep * tail.parameter_count
    assert any(tail.count({**sizes, n: sizes[n] + 1}) > keep * tail.parameter_count for n in sizes)
    for name, indices in kept.items():
        assert indices.tolist() == sorted(set(indices.tolist())) != []
        assert int(scores[name].argmax()) in indices.tolist()


def test_however_small_the_budget_no_group_is_emptied() -> None:
    tail, _ = _opened()
    kept = choose_channels(tail, _scores(tail), 1e-6)
    assert [len(k) for k in kept.values()] == [1] * len(tail.groups)


def test_keeping_everything_keeps_everything() -> None:
    tail, _ = _opened()
    kept = choose_channels(tail, _scores(tail), 1.0)
    assert [len(kept[g.name]) for g in tail.groups] == [g.width for g in tail.groups]
