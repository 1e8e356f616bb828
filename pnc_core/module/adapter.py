"""The front adapter A: from the target's activation phi to the input of the source's tail.

    A(phi) = relu(W resize(phi) + b)

W is one linear map of channels, the same at every place (a 1x1 convolution). `resize` is needed only if the grids
differ, and ReLU is applied only if the source's activation psi is never negative. A map meets tokens on the grid of
their patches; class and register tokens get a linear map of their own, from the mean of phi.

A starts as the ridge regression of psi on phi, summed over images x and places p,

    min_{W, b} sum_{x, p} |W phi_xp + b - psi_xp|^2 + ridge |W|^2,

and is then trained by feature matching.

Source: the paper's abstract (insertion through an adapter). The ridge start is our own choice: it ranks positions
without training.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.config import NetworkSpec
from pnc_core.errors import PositionError
from pnc_core.graph.positions import INPUT, PositionInfo
from pnc_core.module.manifest import Resize


class Adapter(nn.Module):
    """phi (N, *target shape) -> A(phi) (N, *source shape)."""

    def __init__(self, target: PositionInfo, source: PositionInfo, *, relu: bool, resize: Resize = "cells") -> None:
        super().__init__()
        self.target_axis, self.source_axis, self.relu, self.resize = target.axis, source.axis, relu, resize
        self.direct = target.grid == source.grid
        """Both activations have the same grid; no resizing is needed."""
        if not self.direct and None in (target.places, source.places):
            raise PositionError(
                f"positions {target.name!r} -> {source.name!r}: expected maps, tokens that are patches of a map, or "
                f"equally many tokens, got shapes {target.shape} and {source.shape}; choose another pair"
            )
        self.local = self.direct or (_in_cells(target) and _in_cells(source))
        """Both activations have the same cells of `pnc_core.method.lime` at the same places."""
        self._target, self._source = target, source
        self.weight = nn.Parameter(torch.zeros(source.channels, target.channels))
        self.bias = nn.Parameter(torch.zeros(source.channels))
        self.leading = 0 if self.direct else source.leading
        if self.leading:
            self.leading_weight = nn.Parameter(torch.zeros(self.leading * source.channels, target.channels))
            self.leading_bias = nn.Parameter(torch.zeros(self.leading * source.channels))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the activation that it takes, without the batch."""
        return self._target.shape

    def aligned(self, phi: Tensor) -> Tensor:
        """phi on the source's grid, channels last: (N, *grid, C_t), without leading tokens."""
        x = phi.movedim(self.target_axis, -1)
        if self.direct:
            return x
        rows, columns = self._target.places or ()
        wanted = self._source.places or ()
        if x.ndim == 3:
            x = x[:, self._target.leading :].unflatten(1, (rows, columns))
        if (rows, columns) != wanted:
            x = _resize(x.movedim(-1, 1), wanted, self.resize).movedim(1, -1)
        return x if len(self._source.grid) == 2 else x.flatten(1, 2)

    def summary(self, phi: Tensor) -> Tensor:
        """Input (N, C_t) of the map for leading tokens: the mean of the target's leading tokens, or of all places."""
        x = phi.movedim(self.target_axis, -1).flatten(1, -2)
        return x[:, : self._target.leading or x.shape[1]].mean(1)

    def forward(self, phi: Tensor) -> Tensor:
        """A(phi), in the source's layout."""
        y = F.linear(self.aligned(phi), self.weight, self.bias)
        if self.leading:
            first = F.linear(self.summary(phi), self.leading_weight, self.leading_bias)
            y = torch.cat([first.unflatten(1, (self.leading, -1)), y], dim=1)
        y = y.movedim(-1, self.source_axis)
        return torch.relu(y) if self.relu else y


def _in_cells(info: PositionInfo) -> bool:
    """Is it a map, or a square of patches behind at most one token? `lime` divides only these by place."""
    return len(info.grid) == 2 or (info.leading <= 1 and info.patches is not None and len(set(info.patches)) == 1)


def _resize(x: Tensor, grid: tuple[int, ...], how: Resize) -> Tensor:
    """Resize maps: `pixels` bilinearly, as `preprocess` does; `cells` by averaging or repeating cells."""
    height, width = grid
    if how == "pixels":  # float32: some processors have no bfloat16 kernel for it
        return F.interpolate(x.float(), (height, width), mode="bilinear", antialias=True).to(x.dtype)
    if x.shape[2] >= height and x.shape[3] >= width:
        return F.adaptive_avg_pool2d(x, (height, width))
    return F.interpolate(x, (height, width), mode="nearest")


class RidgeSums:
    """Ridge regression y = W x + b from sums over batches, in float64.

    With X = (x, 1):

        (W, b)' = (X'X + lambda diag(1, ..., 1, 0))^-1 X'y,    lambda = ridge x mean of the diagonal of x'x
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.xx = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.xy = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows: x (M, inputs), y (M, outputs)."""
        x = F.pad(x.detach().cpu().double(), (0, 1), value=1.0)
        self.xx += x.T @ x
        self.xy += x.T @ y.detach().cpu().double()

    def solve(self, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
        """Weights float32 (outputs, inputs) and bias (outputs,).

        Args:
            ridge: Relative to the mean square of the inputs. The bias is not penalised.
        """
        diagonal = ridge * self.xx.diagonal()[:-1].mean().clamp_min(1e-12)
        penalty = torch.diag(F.pad(diagonal.expand(len(self.xx) - 1), (0, 1), value=1e-9))
        solution = torch.linalg.solve(self.xx + penalty, self.xy).float()  # autocast does not change float64
        return solution[:-1].T.contiguous(), solution[-1].clone()


def ridge_solutions(x: Tensor, y: Tensor, ridges: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """The solutions of `RidgeSums` for several ridges, with one decomposition in float64.

    With centred rows X, y and X'X = V diag(s) V':

        W' = V diag(1 / (s + lambda)) V' X'y = X'(XX' + lambda)^-1 y

    The second form has matrices of N x N, and is taken if there are fewer rows than inputs.

    Args:
        x: (N, inputs).
        y: (N, outputs).
        ridges: As for `RidgeSums.solve`.

    Returns:
        Weights float32 (outputs, inputs) and bias (outputs,), for each ridge.
    """
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    scale = x.square().sum(0).mean().clamp_min(1e-12)
    mean, mean_y = x.mean(0), y.mean(0)
    rows, wanted = x - mean, y - mean_y
    few = len(rows) < rows.shape[1]
    squares, directions = torch.linalg.eigh(rows @ rows.T if few else rows.T @ rows)
    wanted = directions.T @ (wanted if few else rows.T @ wanted)
    found = []
    for ridge in ridges:
        solved = directions @ (wanted / (squares.clamp_min(0) + ridge * scale)[:, None])
        weight = (rows.T @ solved if few else solved).T
        found.append((weight.float().contiguous(), (mean_y - weight @ mean).float()))
    return found


CELLS = 64
"""Largest number of places per image in a ridge regression. Neighbouring places hold similar values."""


def some_places(x: Tensor) -> Tensor:
    """Copy up to `CELLS` evenly spaced places of every image: (N, places, C) -> (rows, C)."""
    cells = torch.linspace(0, x.shape[1] - 1, min(CELLS, x.shape[1])).long().to(x.device)
    return x[:, cells].flatten(0, 1)


class AdapterFit:
    """Fits one adapter by ridge regression, batch by batch.

    Raises:
        PositionError: the two shapes cannot be joined by an adapter.
    """

    def __init__(self, target: PositionInfo, source: PositionInfo) -> None:
        self._adapter = Adapter(target, source, relu=False)
        self._sums = RidgeSums(target.channels, source.channels)
        self._leading = RidgeSums(target.channels, self._adapter.leading * source.channels)
        self._source, self._lowest = source, torch.inf

    def add(self, phi: Tensor, wanted: Tensor) -> None:
        """Add a batch: activations phi (N, *target shape) and psi (N, *source shape) of the same images."""
        x, y = self._adapter.aligned(phi).flatten(1, -2), wanted.movedim(self._source.axis, -1).flatten(1, -2)
        first, places = y.split([self._adapter.leading, x.shape[1]], dim=1)
        self._sums.add(some_places(x), some_places(places))
        if self._adapter.leading:
            self._leading.add(self._adapter.summary(phi), first.flatten(1))
        self._lowest = min(self._lowest, float(y.min()))

    def adapter(self) -> Adapter:
        """Solve and return the adapter."""
        weight, bias = self._sums.solve()
        self._adapter.weight.data.copy_(weight)
        self._adapter.bias.data.copy_(bias)
        if self._adapter.leading:
            weight, bias = self._leading.solve()
            self._adapter.leading_weight.data.copy_(weight)
            self._adapter.leading_bias.data.copy_(bias)
        self._adapter.relu = self._lowest >= 0 and self._source.name != INPUT
        return self._adapter


def takes_the_same_images(target: PositionInfo, source: PositionInfo) -> bool:
    """Are both positions network inputs with equal channels, or with one (grey) and three (colour)?"""
    channels = {target.channels, source.channels}
    return target.name == source.name == INPUT and (len(channels) == 1 or channels == {1, 3})


def input_adapter(target: PositionInfo, source: PositionInfo, specs: tuple[NetworkSpec, NetworkSpec]) -> Adapter:
    """The adapter between the two networks' inputs: from the target's normalisation to the source's.

    With the means m and standard deviations s of target (t) and source (s):

        y = (x s_t + m_t - m_s) / s_s

    It is exact if both networks have the same geometry: channels are reordered, and means and deviations are converted
    to pixels of 0..1. Otherwise the module takes the image preprocessed for the source, and the adapter starts as the
    identity.
    """
    if specs[0].geometry != specs[1].geometry:
        adapter = Adapter(source, source, relu=False, resize="image")
        adapter.weight.data.copy_(torch.eye(source.channels))
        return adapter
    adapter = Adapter(target, source, relu=False)
    (t_mean, t_std), (s_mean, s_std) = (_scaling(spec) for spec in specs)
    same_order = specs[0].preprocessing.channel_order == specs[1].preprocessing.channel_order
    share = torch.eye(len(s_mean)) if same_order else torch.eye(len(s_mean)).flip(0)
    adapter.weight.data.copy_(share * t_std / s_std[:, None])
    adapter.bias.data.copy_((share @ t_mean - s_mean) / s_std)
    return adapter


def _scaling(spec: NetworkSpec) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation for pixels of 0..1."""
    unit = 255 if spec.preprocessing.value_range == "0..255" else 1
    return torch.tensor(spec.mean) / unit, torch.tensor(spec.std) / unit
