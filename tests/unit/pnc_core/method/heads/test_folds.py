import pytest
import torch
from torch import Tensor

from pnc_core.images import ImageSet
from pnc_core.method.heads.choose import chosen_elsewhere
from pnc_core.method.heads.fit import HeadInputs, accuracy, fit_head, head_logits
from pnc_core.method.heads.folds import FOLDS, Candidate, cross_fit, folds_of
from tests.unit.pnc_core.method.heads.inputs import FEATURES, NEW, OLD, inputs


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _images(labels: list[int], pixels: list[int]) -> ImageSet:
    images = torch.tensor(pixels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return ImageSet(images, torch.tensor(labels), tuple(map(str, range(max(labels) + 1))))


def test_folds_spread_every_class_and_depend_on_the_seed_alone() -> None:
    images = _images([0] * 20 + [1] * 15, list(range(35)))
    folds = folds_of(images, _generator())
    assert torch.equal(folds, folds_of(images, _generator()))
    assert torch.bincount(folds[:20]).tolist() == [4] * FOLDS
    assert torch.bincount(folds[20:]).tolist() == [3] * FOLDS


def test_copies_of_an_image_share_a_fold_even_with_another_label() -> None:
    images = _images([0, 0, 0, 0, 1, 1], [1, 2, 1, 3, 4, 2])
    folds = folds_of(images, _generator())
    assert folds[0] == folds[2]
    assert folds[1] == folds[5]


def _copied(rows: HeadInputs, times: int) -> HeadInputs:
    copies = rows
    for _ in range(times - 1):
        copies = copies.join(rows)
    return copies


def _judged(rows: HeadInputs, folds: Tensor, kinds: tuple[tuple[str, float], ...]) -> float:
    shown = torch.arange(len(rows.labels))
    found = cross_fit([Candidate(kind, strength, 1, rows) for kind, strength in kinds], shown, folds)
    return found.score.average


def test_ten_copies_of_a_few_images_are_judged_as_the_images_themselves() -> None:
    # A head on as many features as images fits the images by heart; copies in other folds would repeat them.
    rows = inputs(24, seed=3)
    noise = torch.randn(24, 200, generator=_generator())
    rows = HeadInputs(torch.zeros_like(rows.old), torch.zeros_like(rows.own), noise, rows.labels)
    folds, kind = torch.arange(24) % FOLDS, (("joint", 1e-3),)
    copies = _copied(rows, 10)
    honest, grouped = _judged(rows, folds, kind), _judged(copies, folds.repeat(10), kind)
    assert grouped == pytest.approx(honest, abs=0.1)
    assert _judged(copies, torch.arange(240) // 24 % FOLDS, kind) > honest + 0.4


def test_the_score_is_that_of_other_images_and_not_of_the_images_fitted_on() -> None:
    rows, test = inputs(150, seed=1), inputs(2000, seed=2)
    noise = torch.randn(150, 120, generator=_generator())
    test_noise = torch.randn(2000, 120, generator=torch.Generator().manual_seed(9))
    wide = HeadInputs(rows.old, rows.own, torch.cat([rows.features, noise], 1), rows.labels)
    other = HeadInputs(test.old, test.own, torch.cat([test.features, test_noise], 1), test.labels)
    found = cross_fit([Candidate("joint", 1e-3, 1, wide)], torch.arange(150), folds := torch.arange(150) % FOLDS)
    seen = accuracy(head_logits(found.head, wide), wide.labels, OLD).average
    unseen = accuracy(head_logits(found.head, other), other.labels, OLD).average
    assert len(folds) == 150
    assert seen > 0.98
    assert abs(found.score.average - unseen) < 0.08 < seen - unseen


def test_views_of_an_image_are_never_fitted_on_for_its_fold() -> None:
    rows = inputs(30, seed=4)
    noise = torch.randn(30, 100, generator=_generator())
    rows = HeadInputs(torch.zeros_like(rows.old), torch.zeros_like(rows.own), noise, rows.labels)
    both, shown = rows.join(rows), torch.cat([torch.arange(30), torch.arange(30)])
    found = cross_fit([Candidate("joint", 1e-3, 1, both)], shown, torch.arange(30) % FOLDS)
    assert found.score.average < 0.6


def test_each_fold_is_judged_by_the_head_that_the_other_folds_choose() -> None:
    labels, folds = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    right = torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0], [0.0, 9.0]])
    # The first head is right on the first fold alone, the second one on the second fold alone.
    answers = torch.stack([torch.cat([right[:2], -right[2:]]), torch.cat([-right[:2], right[2:]])])
    picked = chosen_elsewhere(answers, labels, 1, folds)
    assert torch.equal(picked, -right)


def test_with_few_rows_a_fit_equals_the_fit_on_all_columns() -> None:
    rows = inputs(40, seed=5)
    wide = HeadInputs(rows.old, rows.own, torch.randn(40, 90, generator=_generator()), rows.labels)
    narrow = fit_head("joint", wide, 1e-1)
    weights = narrow.weight.clone()
    # The gradient of the loss plus the penalty is zero at the minimum over all 90 columns, not over the row space only.
    std, mean = wide.features.double().std(0), wide.features.double().mean(0)
    z = (wide.features.double() - mean) / std
    w = (weights.double() * std).requires_grad_(True)
    logits = torch.cat([wide.old, wide.own * narrow.scale + narrow.offset], 1).double()
    bias = narrow.bias.double() + weights.double() @ mean
    is_new = wide.labels >= OLD
    share = is_new.double().mean()
    weight = torch.where(is_new, 0.5 / share, 0.5 / (1 - share)) / len(is_new)
    loss = (torch.nn.functional.cross_entropy(logits + z @ w.T + bias, wide.labels, reduction="none") * weight).sum()
    (loss + 1e-1 * w.square().sum()).backward()
    assert w.grad is not None
    assert float(w.grad.abs().max()) < 1e-4
    assert narrow.weight.shape == (OLD + NEW, 90)
    assert FEATURES < 90
