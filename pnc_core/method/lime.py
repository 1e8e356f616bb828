"""The local behaviour of a network around one input: a LIME surrogate in closed form.

An input's grid is divided into 4 x 4 cells. In 32 fixed *variants* of the input some cells are blocked: they hold the
channel's mean. Let B (32, cells + 1) hold 1 for a kept and 0 for a blocked cell, with a last column of ones, F (32, K)
the network's logits on the variants, and P the diagonal matrix of the variants' weights. The surrogate is the weighted
ridge regression of F on B:

    w = Q F,    Q = (B' P B + 0.01 I)^-1 B' P,    P_vv = exp(-(blocked share of variant v / 0.25)^2)

Coefficient w_ck says how much cell c contributes to class k. Q is the same for every input, so w needs no random
numbers and is differentiable in F.

References:
    Ribeiro, Singh, Guestrin, "Why should I trust you?", KDD 2016 (LIME: a local
    linear surrogate on presence and absence of parts). The paper's abstract says that the
    module is found by local performance. The fixed design is our own choice: it compares two
    networks on the same variants.
"""

import hashlib
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pnc_core.devices import full_precision
from pnc_core.errors import DataError

VARIANTS = 32
"""Number of variants of an input; the first is the input itself."""
SIDE = 4
"""Cells per side; fewer if the grid is smaller."""
BLOCKED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Blocked shares of successive variants; the mean is 0.3.

With equal shares the sum over all cells would be constant, and the regression could not separate it from the intercept.
"""
KERNEL_WIDTH = 0.25
"""A variant with blocked share s has the weight exp(-(s / 0.25)^2)."""
RIDGE = 1e-2


@cache
def design(cells: int = SIDE * SIDE) -> Tensor:
    """The kept cells of every variant, a constant.

    Each variant blocks the cells that earlier variants blocked least often. A hash breaks ties, so the design depends
    on no random generator.

    Args:
        cells: Number of cells, at least 1.

    Returns:
        float32 (32, cells): 0 for a blocked, 1 for a kept cell; the first row is all ones. The tensor is cached: do not
        change it.
    """
    kept = torch.ones(VARIANTS, cells)
    times = [0] * cells
    for variant in range(1, VARIANTS):
        count = max(1, round(BLOCKED[variant % len(BLOCKED)] * cells))
        order = sorted(range(cells), key=lambda cell: (times[cell], _hash(variant, cell)))
        for cell in order[:count]:
            times[cell] += 1
            kept[variant, cell] = 0
    return kept


def _hash(variant: int, cell: int) -> str:
    return hashlib.sha256(f"{variant}/{cell}".encode()).hexdigest()


@cache
def weights(cells: int = SIDE * SIDE) -> Tensor:
    """Weight P_vv = exp(-(blocked share / 0.25)^2) of every variant, float32 (32,)."""
    blocked = 1 - design(cells).mean(1)
    return torch.exp(-((blocked / KERNEL_WIDTH) ** 2))


@cache
def solution(cells: int = SIDE * SIDE) -> Tensor:
    """Q = (B'PB + 0.01 I)^-1 B'P, float32 (cells + 1, 32); the last row gives the intercept.

    The tensor is cached: do not change it.
    """
    b = torch.cat([design(cells), torch.ones(VARIANTS, 1)], dim=1).double()
    weighted = b.T * weights(cells).double()
    q: Tensor = torch.linalg.solve(weighted @ b + RIDGE * torch.eye(cells + 1, dtype=torch.float64), weighted)
    return q.float()


def cell_count(shape: tuple[int, ...], axis: int = 1) -> int:
    """Number of cells of a batched activation: 16, or fewer if its grid is smaller than 4 x 4.

    Args:
        shape: Batched shape, (N, C, H, W), (N, H, W, C) or (N, T, C).
        axis: Which dimension holds the channels.
    """
    return int(_cells(_grid(shape, axis)).max()) + 1


def _grid(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    if not 3 <= len(shape) <= 4 or axis % len(shape) == 0:
        raise DataError(f"activation: expected (N, C, H, W), (N, H, W, C) or (N, T, C), got {shape}, channels {axis}")
    return tuple(n for i, n in enumerate(shape) if i not in (0, axis % len(shape)))


@cache
def _cells(grid: tuple[int, ...]) -> Tensor:
    """Index of each place's cell, int64 (*grid); places with index -1 are never blocked.

    T tokens are taken as a square of patches if T, or T - 1 with a leading class token, is a square number. The class
    token has index -1. Any other sequence is divided into up to 16 runs of neighbouring tokens.
    """
    if len(grid) == 1:
        side = math.isqrt(grid[0])
        if side > 1 and grid[0] - side * side in (0, 1):
            patches = _cells((side, side)).reshape(-1)
            return torch.cat([torch.full((grid[0] - side * side,), -1), patches])
        runs = min(SIDE * SIDE, grid[0])
        return torch.arange(grid[0]) * runs // grid[0]
    rows, columns = (min(SIDE, n) for n in grid)
    down, across = torch.arange(grid[0]) * rows // grid[0], torch.arange(grid[1]) * columns // grid[1]
    return down[:, None] * columns + across


def variants(x: Tensor, fill: Tensor | None = None, *, axis: int = 1) -> Tensor:
    """The 32 variants of every input; the first is the input itself.

    Args:
        x: Images or activations, float (N, C, H, W), (N, H, W, C) or (N, T, C); not changed.
        fill: Value of blocked places, (C,) for all inputs or (N, C). By default the mean of the input's channel, so
            variants do not depend on the rest of the batch.
        axis: Dimension of `x` that holds the channels.

    Returns:
        (N, 32, ...) with the rest of the shape, dtype and device of `x`; differentiable.

    Raises:
        DataError: `x` has another shape.
    """
    cells = _cells(_grid(tuple(x.shape), axis))
    kept = torch.cat([design(int(cells.max()) + 1), torch.ones(VARIANTS, 1)], dim=1)[:, cells]
    last = x.movedim(axis, -1)
    if fill is None:
        fill = last.flatten(1, -2).mean(1)
    blank = fill.expand(len(x), -1).reshape(len(x), 1, *(1,) * cells.ndim, -1).to(x)
    mask = kept.to(x)[None, ..., None]
    # Not x * mask + blank * (1 - mask): kept places must stay bit for bit, and inf * 0 is nan.
    return torch.where(mask > 0, last[:, None], blank).movedim(-1, axis % x.ndim + 1)


def surrogate(logits: Tensor, cells: int = SIDE * SIDE) -> Tensor:
    """Coefficients w = Q F of the local linear model.

    Args:
        logits: F, float (N, 32, K), in the order of the variants; float16 and bfloat16 become float32.
        cells: Number of cells of the variants' grid, as `cell_count` returns it.

    Returns:
        (N, cells + 1, K): one row per cell, then the intercept; differentiable.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    with full_precision():
        return torch.einsum("cv,nvk->nck", solution(cells).to(logits), logits)


def local_representation(
    f: Callable[[Tensor], Tensor], x: Tensor, *, fill: Tensor | None = None, axis: int = 1, chunk: int = 8
) -> Tensor:
    """The surrogate's coefficients per cell and class, for the network `f`.

    Args:
        f: Inputs (M, ...) -> logits (M, K). Gradients flow unless the caller disables them.
        x: As for `variants`.
        fill: As for `variants`.
        axis: As for `variants`.
        chunk: Number of inputs whose variants form one batch for `f`.

    Returns:
        (N, cells, K): the surrogate without its intercept.
    """
    cells = cell_count(tuple(x.shape), axis)
    rows = []
    for start in range(0, len(x), chunk):
        part = slice(start, start + chunk)
        blank = fill[part] if fill is not None and fill.ndim == 2 else fill
        seen = variants(x[part], blank, axis=axis)
        logits = f(seen.flatten(0, 1))
        rows.append(surrogate(logits.reshape(len(seen), VARIANTS, -1), cells)[:, :-1])
    return torch.cat(rows)


def local_mismatch(source_logits: Tensor, module_logits: Tensor, cells: int = SIDE * SIDE) -> Tensor:
    """Mismatch of the local behaviour of module and source.

    L = mean_x |Q (F_S - F_M)|^2 / (|Q F_S|^2 + 1e-6), including the intercept.

    L = 0 for equal behaviour, and L = 1 for a module with constant logits 0.

    Args:
        source_logits: F_S, float (N, 32, K): the source's logits on the variants.
        module_logits: F_M, float (N, 32, K): the module's logits on the same variants.
        cells: Number of cells of the variants' grid.

    Returns:
        A scalar, differentiable in both.
    """
    wanted = surrogate(source_logits, cells)
    missed = surrogate(source_logits - module_logits, cells)
    return (missed.square().sum((1, 2)) / (wanted.square().sum((1, 2)) + 1e-6)).mean()
