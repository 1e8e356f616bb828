import pytest
import torch
from torch import Tensor

from pnc_core.errors import DataError
from pnc_core.method.lime import (
    VARIANTS,
    cell_count,
    design,
    local_mismatch,
    local_representation,
    solution,
    surrogate,
    variants,
    weights,
)


def _linear(coefficients: Tensor, cells: int) -> Tensor:
    """Logits (1, 32, K) that are linear in the kept cells; the last row of coefficients is the intercept."""
    return (torch.cat([design(cells), torch.ones(VARIANTS, 1)], dim=1) @ coefficients)[None]


def test_the_design_is_a_constant() -> None:
    rows = design()
    assert rows.shape == (VARIANTS, 16)
    assert rows[0].tolist() == [1.0] * 16
    assert len({tuple(row) for row in rows.tolist()}) == VARIANTS
    assert 0.65 < float(rows.mean()) < 0.75
    assert float(rows.sum(0).max() - rows.sum(0).min()) <= 1
    # Exact rows: a changed design would make representations of different versions incomparable.
    assert [int("".join(str(int(v)) for v in row), 2) for row in rows[1:4]] == [28655, 48030, 54649]


@pytest.mark.parametrize("cells", [4, 9, 12, 16])
def test_the_surrogate_finds_a_linear_function_again_up_to_the_ridge(cells: int) -> None:
    wanted = torch.randn(cells + 1, 3, generator=torch.Generator().manual_seed(0))
    found = surrogate(_linear(wanted, cells), cells)[0]
    assert found.shape == (cells + 1, 3)
    # Bias of the ridge: 0.01, against the information of a tenth of the 32 weighted variants.
    assert float((found - wanted).norm() / wanted.norm()) < 0.1


def test_the_solution_is_the_weighted_ridge_regression() -> None:
    b = torch.cat([design(), torch.ones(VARIANTS, 1)], dim=1).double()
    logits = torch.randn(VARIANTS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = (solution().double() @ logits).requires_grad_()
    loss = (weights().double()[:, None] * (b @ w - logits) ** 2).sum() + 1e-2 * (w**2).sum()
    (slope,) = torch.autograd.grad(loss, w)
    assert float(slope.abs().max()) < 1e-4


def test_variants_block_whole_cells_and_keep_the_rest_bit_for_bit() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    seen = variants(x)
    assert seen.shape == (2, VARIANTS, 3, 8, 8)
    assert torch.equal(seen[:, 0], x)
    means = x.mean((2, 3))
    for variant, row in enumerate(design().reshape(VARIANTS, 4, 4)):
        kept = row.repeat_interleave(2, 0).repeat_interleave(2, 1).bool()
        assert torch.equal(seen[:, variant, :, kept], x[:, :, kept])
        assert torch.allclose(seen[:, variant, :, ~kept], means[:, :, None].expand(-1, -1, int((~kept).sum())))


def test_a_fill_of_the_caller_s_is_used() -> None:
    x, fill = torch.randn(2, 3, 4, 4), torch.tensor([5.0, 6.0, 7.0])
    blocked = design()[1].reshape(4, 4) == 0
    assert torch.equal(variants(x, fill)[1, 1, :, blocked], fill[:, None].expand(-1, int(blocked.sum())))
    assert torch.equal(
        variants(x, torch.stack([fill, 2 * fill]))[1, 1, 0, blocked], torch.full((int(blocked.sum()),), 10.0)
    )


def test_channels_may_be_last() -> None:
    x = torch.randn(2, 3, 8, 6)
    assert torch.equal(variants(x.movedim(1, -1), axis=3), variants(x).movedim(2, -1))


def test_a_class_token_is_never_blocked() -> None:
    x = torch.randn(2, 17, 5)
    seen = variants(x, axis=2)
    assert seen.shape == (2, VARIANTS, 17, 5)
    assert torch.equal(seen[:, :, 0], x[:, None, 0].expand(-1, VARIANTS, -1))
    patches = variants(x[:, 1:].reshape(2, 4, 4, 5), x.flatten(1, 1).mean(1), axis=3)
    assert torch.equal(seen[:, :, 1:], patches.reshape(2, VARIANTS, 16, 5))


@pytest.mark.parametrize(
    ("shape", "axis", "cells"),
    [((1, 3, 32, 32), 1, 16), ((1, 3, 3, 5), 1, 12), ((1, 2, 2, 8), 3, 4), ((1, 50, 7), 2, 16), ((1, 11, 7), 2, 11)],
)
def test_small_grids_have_fewer_cells(shape: tuple[int, ...], axis: int, cells: int) -> None:
    x = torch.randn(shape)
    assert cell_count(shape, axis) == cells
    assert variants(x, axis=axis).shape == (1, VARIANTS, *shape[1:])


def test_a_flat_activation_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected \(N, C, H, W\).*got \(2, 5\)"):
        variants(torch.randn(2, 5))


def test_the_representation_points_at_the_cell_that_speaks_for_a_class() -> None:
    x = torch.full((3, 2, 8, 8), 0.1)
    for image, (row, column) in enumerate([(0, 0), (1, 2), (3, 3)]):
        x[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 4.0

    def f(seen: Tensor) -> Tensor:
        return torch.stack([seen[:, 0].amax((1, 2)), -seen[:, 1].amax((1, 2))], dim=1)

    found = local_representation(f, x, chunk=2)
    assert found.shape == (3, 16, 2)
    assert found[:, :, 0].argmax(1).tolist() == [0, 6, 15]
    assert found[:, :, 1].argmin(1).tolist() == [0, 6, 15]


def test_an_image_s_representation_does_not_depend_on_its_batch() -> None:
    x, weight = torch.randn(5, 3, 8, 8), torch.randn(4, 192)
    together = local_representation(lambda seen: torch.tanh(seen.flatten(1) @ weight.T), x)
    alone = local_representation(lambda seen: torch.tanh(seen.flatten(1) @ weight.T), x[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_the_mismatch_is_nothing_for_equals_one_for_silence_and_can_be_learned_from() -> None:
    source = torch.randn(4, VARIANTS, 3, generator=torch.Generator().manual_seed(3))
    module = torch.zeros_like(source, requires_grad=True)
    assert float(local_mismatch(source, source)) == 0
    silent = local_mismatch(source, module)
    assert silent.item() == pytest.approx(1, abs=1e-5)
    (slope,) = torch.autograd.grad(silent, module)
    assert local_mismatch(source, module - slope).item() < silent.item()
