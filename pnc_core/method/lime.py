"""The local behaviour of a network around one input, as LIME sees it, in closed form.

An input's grid is divided into 4 x 4 cells. In 32 fixed *variants* of it some cells
are blocked (filled with the channel's mean), and a weighted ridge regression of
the logits on which cells were left says how much each cell speaks for each
class. The design is the same for every input, so that the regression is one
constant matrix, w = Q F: cheap, free of random numbers, and differentiable.

References:
    Ribeiro, Singh, Guestrin, "Why should I trust you?", KDD 2016 (LIME: a local
    linear surrogate on presence and absence of parts). The paper's abstract says that the
    module is found by local performance; a fixed design and its closed form are our
    own choice, so that two networks are compared on the very same variants.
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
"""Variants of an input; the first is the input itself."""
SIDE = 4
"""Cells a side; fewer where the grid is smaller."""
BLOCKED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Share of the cells that is blocked, in turn: 0.3 on average. Different shares tell the cells from the constant."""
KERNEL_WIDTH = 0.25
"""A variant with the share s of its cells blocked weighs exp(-(s / 0.25)^2)."""
RIDGE = 1e-2


@cache
def design(cells: int = SIDE * SIDE) -> Tensor:
    """Which cells every variant keeps: a constant, the same on every machine and in every version.

    Each variant blocks the cells that were blocked least often so far; ties are
    broken by a hash, so that no random generator is part of the definition.

    Args:
        cells: Number of cells, at least 1.

    Returns:
        float32 (32, cells) of 0 (blocked) and 1 (kept); the first row is all ones. Shared: do not change it.
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
    """How much every variant counts: float32 (32,), 1 for the input itself, less the more is blocked."""
    blocked = 1 - design(cells).mean(1)
    return torch.exp(-((blocked / KERNEL_WIDTH) ** 2))


@cache
def solution(cells: int = SIDE * SIDE) -> Tensor:
    """Q = (B'PB + 0.01 I)^-1 B'P, float32 (cells + 1, 32); the last row is the constant. Shared: do not change it."""
    b = torch.cat([design(cells), torch.ones(VARIANTS, 1)], dim=1).double()
    weighted = b.T * weights(cells).double()
    q: Tensor = torch.linalg.solve(weighted @ b + RIDGE * torch.eye(cells + 1, dtype=torch.float64), weighted)
    return q.float()


def cell_count(shape: tuple[int, ...], axis: int = 1) -> int:
    """Number of cells of a batched activation: 16, or fewer where its grid is smaller than 4 x 4.

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
    """Number of each place's cell, int64 (*grid); -1 is never blocked.

    Tokens are a square of patches, perhaps behind a class token, which has no place
    and is never blocked; any other sequence is divided into runs.
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
    """The 32 variants of every input, the input itself first.

    Args:
        x: Images or activations, float (N, C, H, W), (N, H, W, C) or (N, T, C); not changed.
        fill: What a blocked place holds, (C,) for all inputs or (N, C); by default the
            mean of the input's own channel, so that an input's variants do not depend
            on the batch it is in.
        axis: Which dimension of `x` holds the channels.

    Returns:
        (N, 32, ...) with the rest of the shape, dtype and device of `x`; differentiable.

    Raises:
        DataError: `x` is not of these shapes.
    """
    cells = _cells(_grid(tuple(x.shape), axis))
    kept = torch.cat([design(int(cells.max()) + 1), torch.ones(VARIANTS, 1)], dim=1)[:, cells]
    last = x.movedim(axis, -1)
    if fill is None:
        fill = last.flatten(1, -2).mean(1)
    blank = fill.expand(len(x), -1).reshape(len(x), 1, *(1,) * cells.ndim, -1).to(x)
    mask = kept.to(x)[None, ..., None]
    # Not x * mask + ...: what is kept must be kept bit for bit, and inf * 0 is no number.
    return torch.where(mask > 0, last[:, None], blank).movedim(-1, axis % x.ndim + 1)


def surrogate(logits: Tensor, cells: int = SIDE * SIDE) -> Tensor:
    """Coefficients of the local linear model, from logits on the variants.

    Args:
        logits: float (N, 32, K), in the variants' order; less than float32 is made float32.
        cells: Number of cells of the variants' grid, as `cell_count` says.

    Returns:
        (N, cells + 1, K): one row a cell, then the constant; differentiable.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    with full_precision():
        return torch.einsum("cv,nvk->nck", solution(cells).to(logits), logits)


def local_representation(
    f: Callable[[Tensor], Tensor], x: Tensor, *, fill: Tensor | None = None, axis: int = 1, chunk: int = 8
) -> Tensor:
    """How much every cell of every input speaks for every class, in the eyes of `f`.

    Args:
        f: Inputs (M, ...) -> logits (M, K). Gradients flow if the caller lets them.
        x: Inputs as `variants` takes them.
        fill: As `variants` takes it.
        axis: As `variants` takes it.
        chunk: How many inputs' variants are given to `f` at once.

    Returns:
        (N, cells, K): the surrogate without its constant.
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
    """How far a module's local behaviour is from the source's: 0 is the same, 1 as far as saying nothing.

    L = mean_x |Q (F_S - F_M)|^2 / (|Q F_S|^2 + 1e-6), the constant included.

    Args:
        source_logits: F_S, float (N, 32, K): the source on the variants.
        module_logits: F_M, float (N, 32, K): the module on the same variants.
        cells: Number of cells of the variants' grid.

    Returns:
        A scalar, differentiable in both.
    """
    wanted = surrogate(source_logits, cells)
    missed = surrogate(source_logits - module_logits, cells)
    return (missed.square().sum((1, 2)) / (wanted.square().sum((1, 2)) + 1e-6)).mean()
