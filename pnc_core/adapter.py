"""The front adapter: from the target's activation to the one the source's tail expects.

Resize to the source's grid where it differs, then one linear map of channels
(a 1x1 convolution; for tokens the same thing), then ReLU where the source's
activation is never negative. It starts as the ridge regression of source
activations on target activations, which is already a good module, and is then
trained by feature matching.

Source: the paper's abstract (insertion through an adapter);
the ridge start is our own choice (it ranks positions without training).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.config import NetworkSpec
from pnc_core.errors import PositionError
from pnc_core.positions import INPUT, PositionInfo


class Adapter(nn.Module):
    """phi (N, *target shape) -> A(phi) (N, *source shape)."""

    def __init__(self, target: PositionInfo, source: PositionInfo, *, relu: bool) -> None:
        super().__init__()
        if len(target.shape) != len(source.shape):
            raise PositionError(
                f"positions {target.name!r} -> {source.name!r}: expected both maps or both tokens, "
                f"got shapes {target.shape} and {source.shape}; choose another pair"
            )
        if len(target.shape) == 2 and target.grid != source.grid:
            raise PositionError(f"positions: expected equally many tokens, got {target.grid} and {source.grid}")
        self.target_axis, self.source_axis, self.grid, self.relu = target.axis, source.axis, source.grid, relu
        self.weight = nn.Parameter(torch.zeros(source.channels, target.channels))
        self.bias = nn.Parameter(torch.zeros(source.channels))

    def aligned(self, phi: Tensor) -> Tensor:
        """Channels last, on the source's grid: (N, *grid, C_t)."""
        x = phi.movedim(self.target_axis, 1)
        if x.ndim == 4 and tuple(x.shape[2:]) != self.grid:
            x = _resize(x, self.grid)
        return x.movedim(1, -1)

    def forward(self, phi: Tensor) -> Tensor:
        """Map channels, in the source's layout."""
        y = F.linear(self.aligned(phi), self.weight, self.bias).movedim(-1, self.source_axis)
        return torch.relu(y) if self.relu else y


def _resize(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Average-pool to a smaller grid, repeat the nearest cell for a larger one."""
    height, width = grid
    if x.shape[2] >= height and x.shape[3] >= width:
        return F.adaptive_avg_pool2d(x, (height, width))
    return F.interpolate(x, (height, width), mode="nearest")


class RidgeSums:
    """Sums for a ridge regression y = W x + b that are gathered batch by batch, in float64."""

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

        `ridge` is relative to the mean square of the inputs; the bias is not shrunk.
        """
        diagonal = ridge * self.xx.diagonal()[:-1].mean().clamp_min(1e-12)
        penalty = torch.diag(F.pad(diagonal.expand(len(self.xx) - 1), (0, 1), value=1e-9))
        solution = torch.linalg.solve(self.xx + penalty, self.xy).float()
        return solution[:-1].T.contiguous(), solution[-1].clone()


CELLS = 64
"""Grid cells of an image that the ridge regression looks at, at most: neighbours say much the same."""


class AdapterFit:
    """Gathers the ridge regression of one adapter, batch by batch.

    Raises:
        PositionError: the two shapes cannot be joined by an adapter.
    """

    def __init__(self, target: PositionInfo, source: PositionInfo) -> None:
        self._adapter = Adapter(target, source, relu=False)
        self._sums = RidgeSums(target.channels, source.channels)
        self._source, self._lowest = source, torch.inf

    def add(self, phi: Tensor, wanted: Tensor) -> None:
        """Activations of the same images: the target's (N, *shape) and the source's (N, *shape)."""
        x, y = self._adapter.aligned(phi), wanted.movedim(self._source.axis, -1)
        x, y = x.flatten(1, -2), y.flatten(1, -2)
        cells = torch.linspace(0, x.shape[1] - 1, min(CELLS, x.shape[1])).long().to(x.device)
        self._sums.add(x[:, cells].flatten(0, 1), y[:, cells].flatten(0, 1))
        self._lowest = min(self._lowest, float(y.min()))

    def adapter(self) -> Adapter:
        """The ridge adapter of all that was added."""
        weight, bias = self._sums.solve()
        self._adapter.weight.data.copy_(weight)
        self._adapter.bias.data.copy_(bias)
        self._adapter.relu = self._lowest >= 0 and self._source.name != INPUT
        return self._adapter


def input_adapter(target: PositionInfo, source: PositionInfo, specs: tuple[NetworkSpec, NetworkSpec]) -> Adapter:
    """The exact adapter between the two networks' inputs: undo one normalisation, apply the other."""
    adapter = Adapter(target, source, relu=False)
    t_mean, t_std, s_mean, s_std = (torch.tensor(v) for v in (specs[0].mean, specs[0].std, specs[1].mean, specs[1].std))
    adapter.weight.data.copy_(torch.diag(t_std / s_std))
    adapter.bias.data.copy_((t_mean - s_mean) / s_std)
    return adapter
