"""Heads: join the target's old logits z_0 (N, N_old) and the module's own logits z (N, K).

With pooled taps f, a head returns (old logits, new logits):

    affine:  (z_0,             s z + o)
    router:  (z_0,             s z + o + w . f + b)      one gate for all new logits
    joint:   (z_0 + W_0 f + b_0,  s z + o + W_1 f + b_1)

`affine` and `router` leave the old logits untouched, and keep the order inside the new classes.

Pooled taps are means and standard deviations of the activations at the positions of target and module. They separate
old from new images, while the features of a network's last layer mainly separate its own classes. A `joint` head has
one row of W per class. With many classes and few images such long rows overfit, so the head may read the last tap of
each side only.

A module of the whole source answers with log-odds. With the logits v of all classes of the source and their
probabilities p = softmax(v),

    z_k = log(p_k / (1 - p_k)) = v_k - log sum_{c != k} exp(v_c)

and `against(z_0)`, which makes odds of the target's largest logit, is added to its new logits. With s = 1, o = 0 and
W = 0 the class with the largest probability wins, of the target's and of the source's. Two networks are often sure of
the same image, with probabilities near 1: log-odds tell 0.99 from 0.999 as well as 0.5 from 0.9, log-probabilities do
not.

Own choice: heads and taps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.errors import MismatchError
from pnc_core.graph.cost import Cost
from pnc_core.graph.positions import PositionInfo, Traced

SHUT = -1e4
"""Logit of the cloned classes for an image that the locality gate rejects: finite, with softmax probability 0."""


def pool_taps(taps: Sequence[Tensor], axes: Sequence[int], grid: int) -> Tensor:
    """Pool taps: float32 (N, D), for every tap its means over at most `grid` x `grid` cells and its standard deviation.

    The standard deviation over all places describes texture, which means do not.
    """
    return torch.cat([_pool(tap.float(), axis, grid) for tap, axis in zip(taps, axes, strict=True)], dim=1)


def _pool(tap: Tensor, axis: int, grid: int) -> Tensor:
    x = tap.movedim(axis, 1)
    if x.ndim == 4:  # reductions over places are several times faster in channels-last format
        x = x.contiguous(memory_format=torch.channels_last)
        means = F.adaptive_avg_pool2d(x, (min(grid, x.shape[2]), min(grid, x.shape[3]))).flatten(1)
    else:
        means = x.flatten(2).mean(2)
    places = tuple(range(2, x.ndim))
    if math.prod(x.shape[2:]) == 1:
        return means
    # E[(x - E x)^2] in two passes: E[x^2] - (E x)^2 loses digits, and `var` takes three times as long.
    spread = (x - x.mean(places, keepdim=True)).square().mean(places)
    return torch.cat([means, (spread + 1e-6).sqrt()], dim=1)


def tap_width(channels: int, grid: tuple[int, ...], cells: int) -> int:
    """Number of features that `pool_taps` makes of one tap with `channels` channels on a `grid`."""
    means = math.prod(min(cells, n) for n in grid) if len(grid) == 2 else 1
    return channels * (means + (math.prod(grid) > 1))


def seen_width(target: Traced, cells: int) -> int:
    """Number of a head's features that come from the target; they are the first ones."""
    return sum(tap_width(p.channels, p.grid, cells) for p in target.taps)


def last_taps(traced: Traced, features: int) -> tuple[PositionInfo, ...]:
    """The target's last taps that have this number of pooled features.

    Raises:
        MismatchError: no number of last taps has it.
    """
    width = 0
    for place in range(len(traced.taps) - 1, -1, -1):
        width += tap_width(traced.taps[place].channels, traced.taps[place].grid, 1)
        if width == features:
            return tuple(traced.taps[place:])
    raise MismatchError(f"common head: expected features of last taps of the target, of {width} in all, got {features}")


def _rows(kind: str, old: int, new: int) -> int:
    return {"affine": 0, "router": 1, "joint": old + new}[kind]


def head_cost(kind: str, features: int, old: int, new: int, locality_gate: int = 0) -> Cost:
    """Cost of a head; arguments as for `Head`."""
    rows, gate = _rows(kind, old, new), locality_gate + 1 if locality_gate else 0
    return Cost(2 + rows * (features + 1) + gate, rows * features + locality_gate)


def log_odds(logits: Tensor, count: int) -> Tensor:
    """log(p / (1 - p)), (N, count), of the first classes among all C >= 2 classes, from logits (N, C)."""
    log_p = logits.log_softmax(1)
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter(1, logits.argmax(1, keepdim=True), True)
    # 1 - p loses all digits at the largest p. There it is the sum of the other classes.
    top = logits - against(logits)
    below = log_p - torch.log1p(-log_p.masked_fill(is_top, -torch.inf).exp())
    return torch.where(is_top, top, below)[:, :count]


def against(logits: Tensor) -> Tensor:
    """Log-sum-exp (N, 1) of all logits (N, C) but the largest: the largest minus this is its log-odds."""
    return logits.scatter(1, logits.argmax(1, keepdim=True), -torch.inf).logsumexp(1, keepdim=True)


class Head(nn.Module):
    """(old logits, module logits, taps) -> (old logits, new logits)."""

    def __init__(self, kind: str, features: int, old: int, new: int, locality_gate: int = 0) -> None:
        """Make a head that changes nothing: scale 1, offset 0, weights 0.

        Args:
            kind: `affine`, `router` or `joint`.
            features: Number D of pooled taps.
            old: Number of old classes.
            new: Number of cloned classes.
            locality_gate: Number of the target's features that the locality gate reads; 0: no locality gate.
        """
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
        """Does it read pooled taps? An affine head without a locality gate does not."""
        return self.kind != "affine" or self.strict

    def opens(self, seen: Tensor) -> Tensor:
        """Does the locality gate let the images pass? From the target's taps (N, D_t): bool (N,)."""
        return (seen @ self.shutter_weight + self.shutter_bias) > 0

    def forward(self, old: Tensor, own: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Join the logits.

        Args:
            old: The target's logits (N, N_old); `affine` and `router` return them unchanged.
            own: The module's logits (N, K).
            features: Pooled taps (N, D).
        """
        correction, new = self.answer(own, features)
        if self.strict:
            opened = self.opens(features[:, : len(self.shutter_weight)])
            new = torch.where(opened[:, None], new, torch.full_like(new, SHUT))
        return (old if correction is None else old + correction), new

    def answer(self, own: Tensor, features: Tensor) -> tuple[Tensor | None, Tensor]:
        """Correction (N, N_old) of the old logits, or None; and new logits (N, K). Without the locality gate."""
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
    """Numbers of last taps that a head reads."""

    target: int
    """Number of the target's last taps."""
    module: int
    """Number of the module's last taps."""


LAST = TapWindow(1, 1)
