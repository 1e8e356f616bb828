"""How old and new logits meet.

The old logits come from the target itself. Three heads, from light to free:

- `affine`: own logits x scale + offset (two numbers).
- `router`: affine, plus one learned gate on the taps that lifts or lowers all new
  logits together: the order inside the old and inside the new classes never changes.
- `joint`: affine, plus a linear correction of every logit from the taps.

Heads read *taps*: means and spreads of the activations at every position of target and module.
The last layer's features have collapsed onto each network's own classes; the
taps still tell old from new. Where classes are many and images few a `joint` head may read the last tap of either
side alone: it has a row a class, and learns rows of that length by heart. Heads and taps are our own choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.graph.cost import Cost
from pnc_core.graph.positions import Traced

SHUT = -1e4
"""Logit of the cloned classes where a strict module is not run: finite, with probability zero."""


def pool_taps(taps: Sequence[Tensor], axes: Sequence[int], grid: int) -> Tensor:
    """Every tap's means over at most `grid` x `grid` cells and its spread over all places, joined: float32 (N, D).

    The spread tells about texture what a mean over a region cannot, at a quarter of what 2x2 cells take.
    """
    return torch.cat([_pool(tap.float(), axis, grid) for tap, axis in zip(taps, axes, strict=True)], dim=1)


def _pool(tap: Tensor, axis: int, grid: int) -> Tensor:
    x = tap.movedim(axis, 1)
    if x.ndim == 4:  # with channels last, reductions over places are several times as fast
        x = x.contiguous(memory_format=torch.channels_last)
        means = F.adaptive_avg_pool2d(x, (min(grid, x.shape[2]), min(grid, x.shape[3]))).flatten(1)
    else:
        means = x.flatten(2).mean(2)
    places = tuple(range(2, x.ndim))
    if math.prod(x.shape[2:]) == 1:
        return means
    # Two passes: the mean of squares less the squared mean would lose digits, `var` takes three times as long.
    spread = (x - x.mean(places, keepdim=True)).square().mean(places)
    return torch.cat([means, (spread + 1e-6).sqrt()], dim=1)


def tap_width(channels: int, grid: tuple[int, ...], cells: int) -> int:
    """How many features `pool_taps` makes of one tap with `channels` channels on a `grid`."""
    means = math.prod(min(cells, n) for n in grid) if len(grid) == 2 else 1
    return channels * (means + (math.prod(grid) > 1))


def seen_width(target: Traced, cells: int) -> int:
    """How many of a head's features are the target's own; they come first."""
    return sum(tap_width(p.channels, p.grid, cells) for p in target.taps)


def _rows(kind: str, old: int, new: int) -> int:
    return {"affine": 0, "router": 1, "joint": old + new}[kind]


def head_cost(kind: str, features: int, old: int, new: int, locality_gate: int = 0) -> Cost:
    """What a head costs; arguments as for `Head`."""
    rows, gate = _rows(kind, old, new), locality_gate + 1 if locality_gate else 0
    return Cost(2 + rows * (features + 1) + gate, rows * features + locality_gate)


class Head(nn.Module):
    """(old logits, module logits, taps) -> (old logits, new logits)."""

    def __init__(self, kind: str, features: int, old: int, new: int, locality_gate: int = 0) -> None:
        """`locality_gate`: how many features, the target's own, decide whether the module is run; 0: it always is."""
        super().__init__()
        self.kind, self.strict = kind, locality_gate > 0
        rows = _rows(kind, old, new)
        self.scale = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))
        self.weight = nn.Parameter(torch.zeros(rows, features if rows else 0))
        self.bias = nn.Parameter(torch.zeros(rows))
        if locality_gate:
            self.shutter_weight = nn.Parameter(torch.zeros(locality_gate))
            self.shutter_bias = nn.Parameter(torch.zeros(()))

    @property
    def needs_taps(self) -> bool:
        """Whether it looks at pooled taps at all: an affine head without a locality gate does not."""
        return self.kind != "affine" or self.strict

    def opens(self, seen: Tensor) -> Tensor:
        """Whether the target's taps (N, D_t) look like a cloned class at all: bool (N,)."""
        return (seen @ self.shutter_weight + self.shutter_bias) > 0

    def forward(self, old: Tensor, own: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Join the logits.

        Args:
            old: The target's logits (N, N_old); `affine` and `router` hand them on untouched.
            own: The module's logits (N, K).
            features: Pooled taps (N, D).
        """
        correction, new = self.answer(own, features)
        if self.strict:
            opened = self.opens(features[:, : len(self.shutter_weight)])
            new = torch.where(opened[:, None], new, torch.full_like(new, SHUT))
        return (old if correction is None else old + correction), new

    def answer(self, own: Tensor, features: Tensor) -> tuple[Tensor | None, Tensor]:
        """The same in parts: a correction (N, N_old) of the old logits, if any, and the new logits (N, K)."""
        new = own * self.scale + self.offset
        if self.kind == "affine":
            return None, new
        correction = F.linear(features, self.weight, self.bias)
        if self.kind == "router":
            return None, new + correction
        old_classes = correction.shape[1] - own.shape[1]
        return correction[:, :old_classes], new + correction[:, old_classes:]


@dataclass(frozen=True)
class TapWindow:
    """How far back from the end a head reads."""

    target: int
    """How many taps of the target."""
    module: int


LAST = TapWindow(1, 1)
