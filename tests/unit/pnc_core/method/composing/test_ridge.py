import pytest
import torch

from pnc_core.errors import DataError
from pnc_core.method.composing.ridge import MIN_PER_CLASS, Sums, check_private, packed, unpacked


def _rows(count: int, width: int = 12, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + torch.randn(count, width, generator=generator) + 3, labels


def test_weights_are_those_of_the_regression_on_all_rows() -> None:
    features, labels = _rows(200)
    start = Sums.start(features, 5)
    found = (start + start.of(features, labels)).solve(10.0)
    z = torch.cat([(features.double() - features.double().mean(0)) / features.double().std(0), torch.ones(200, 1)], 1)
    penalty = torch.cat([torch.eye(12).double() * 10.0**0.5, torch.zeros(12, 1)], 1)
    rows = torch.cat([z, penalty])
    hot = torch.cat([torch.nn.functional.one_hot(labels, 5).double(), torch.zeros(12, 5)])
    expected = torch.linalg.lstsq(rows, hot).solution.T
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_step_by_step_equals_all_rows_at_once() -> None:
    features, labels = _rows(300, classes=6)
    steps = [labels < 3, labels == 3, labels > 3]
    start = Sums.start(features[steps[0]], 3)
    grown = start + start.of(features[steps[0]], labels[steps[0]])
    for step, classes in zip(steps[1:], (4, 6), strict=True):
        old = grown.cross.shape[1]
        grown = grown.widened([place if place < old else None for place in range(classes)])
        grown = grown + grown.of(features[step], labels[step])
    wide = start.widened([0, 1, 2, None, None, None])
    joint = wide + wide.of(features, labels)
    step_by_step, at_once = grown.solve(10.0), joint.solve(10.0)
    assert float((step_by_step - at_once).norm() / at_once.norm()) < 1e-8
    assert grown.counts.tolist() == [50] * 6


def test_columns_follow_their_classes() -> None:
    features, labels = _rows(60, classes=3)
    start = Sums.start(features, 3)
    sums = start + start.of(features, labels)
    moved = sums.widened([2, None, 0, 1])
    assert torch.allclose(moved.solve(1.0)[[2, 3, 0]], sums.solve(1.0)[[0, 1, 2]], rtol=1e-12)
    assert moved.counts.tolist() == [20, 0, 20, 20]


def test_a_packed_gram_matrix_is_the_same_again() -> None:
    half = torch.randn(7, 7, generator=torch.Generator().manual_seed(0)).double()
    gram = half @ half.T
    gram = (gram + gram.T) / 2
    assert torch.equal(unpacked(packed(gram), 7), gram)


@pytest.mark.parametrize(
    ("counts", "features", "is_kept"),
    [
        ([20, 20, 0], 38, True),
        ([20, 20, 0], 39, False),
        ([40, MIN_PER_CLASS], 10, True),
        ([40, MIN_PER_CLASS - 1], 10, False),
        ([0, 0], 1, False),
    ],
)
def test_sums_of_too_few_images_are_refused(counts: list[int], features: int, is_kept: bool) -> None:
    if is_kept:
        check_private(torch.tensor(counts), features, "sums")
        return
    with pytest.raises(DataError, match="show no single image"):
        check_private(torch.tensor(counts), features, "sums")


def test_other_images_of_the_same_scatter_have_the_same_sums() -> None:
    """What the docstring promises: turned deviations from the class means give other images and the same sums."""
    features, labels = _rows(60, width=6, classes=3)
    exact = features.double()
    hot = torch.nn.functional.one_hot(labels, 3).double()
    means = (hot.T @ exact) / hot.sum(0)[:, None]
    inside = torch.linalg.svd(hot, full_matrices=True).U[:, 3:]  # orthogonal to the indicators of the classes
    turn = torch.linalg.qr(torch.randn(57, 57, generator=torch.Generator().manual_seed(1)).double()).Q
    others = means[labels] + inside @ turn @ inside.T @ (exact - means[labels])
    start = Sums.start(exact, 3)
    one, two = start.of(exact, labels), start.of(others, labels)
    assert (others - exact).abs().amax(1).min() > 0.01
    assert torch.allclose(one.gram, two.gram, rtol=1e-9, atol=1e-9)
    assert torch.allclose(one.cross, two.cross, rtol=1e-9, atol=1e-9)
