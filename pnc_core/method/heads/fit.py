"""Fit a head on cached logits and taps, and choose among heads by held-out images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.devices import full_precision
from pnc_core.module.head import Head

SMALL_FIT, LARGE_FIT_ITERATIONS, WARM_ITERATIONS = 2_000_000, 60, 20
"""Features times rows up to which a head is fitted to the last digit; beyond, so many steps of L-BFGS are enough,
and fewer where it goes on from a head of the same kind."""
CHOICE_ROWS = 20_000
"""Rows that the choice between heads is made on, at most; the chosen one is fitted on all."""
STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Weight decays of gate and correction among which validation chooses."""


@dataclass(frozen=True)
class HeadInputs:
    """What a head is fitted on, one row an image."""

    old: Tensor
    """The target's logits (N, N_old)."""
    own: Tensor
    """The module's logits (N, K)."""
    features: Tensor
    """Pooled taps (N, D)."""
    labels: Tensor
    """int64 (N,): old classes first, then the cloned ones."""

    def first(self, count: int) -> "HeadInputs":
        """The first `count` rows."""
        return HeadInputs(*(column[:count] for column in vars(self).values()))

    def some(self, count: int) -> "HeadInputs":
        """About `count` of the rows, if there are more: the same for equal sizes."""
        if len(self.labels) <= count:
            return self
        chosen = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(0))[:count].sort().values
        return HeadInputs(*(column[chosen] for column in vars(self).values()))

    def join(self, other: "HeadInputs") -> "HeadInputs":
        """The rows of both."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return HeadInputs(*(torch.cat(pair) for pair in pairs))


@full_precision()
def fit_head(kind: str, inputs: HeadInputs, strength: float = 1e-2, start: Head | None = None) -> Head:
    """Fit a head by balanced cross-entropy (old and new classes weigh half each).

    Taps are standardised for the fit; the statistics are folded into the weights.

    Args:
        kind: `affine`, `router` or `joint`.
        inputs: Rows of the training images.
        strength: Weight decay on the standardised weights.
        start: A head of this kind, fitted on rows like these, from which a large fit goes on.
    """
    old_classes, new_classes = inputs.old.shape[1], inputs.own.shape[1]
    # Small fits in double precision; large ones would take twice as long for digits that do not count.
    dtype = torch.float64 if inputs.features.numel() <= SMALL_FIT else torch.float32
    features = inputs.features.to(dtype)
    mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
    rows = HeadInputs(inputs.old.to(dtype), inputs.own.to(dtype), (features - mean) / std, inputs.labels)
    head = Head(kind, features.shape[1], old_classes, new_classes).to(dtype)
    iterations = 200
    if dtype == torch.float32:
        iterations = LARGE_FIT_ITERATIONS if start is None else WARM_ITERATIONS
        if start is not None:
            head.load_state_dict(start.state_dict())
            if kind != "affine":
                head.bias.data += head.weight.data @ mean
                head.weight.data *= std
    _minimise(head, rows, balance(inputs.labels, old_classes).to(dtype), strength, iterations)
    head.double()
    if kind != "affine":
        head.weight.data /= std.double()
        head.bias.data -= head.weight.data @ mean.double()
    return head.float().requires_grad_(False)


def balance(labels: Tensor, old_classes: int) -> Tensor:
    """Weights float64 (N,) that sum to one, with which old and new images weigh half each."""
    is_new = labels >= old_classes
    share_new = is_new.double().mean().clamp(1e-9, 1 - 1e-9)
    return torch.where(is_new, 0.5 / share_new, 0.5 / (1 - share_new)) / len(labels)


def _minimise(head: Head, rows: HeadInputs, weights: Tensor, strength: float, iterations: int) -> None:
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=iterations, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.cat(head(rows.old, rows.own, rows.features), dim=1)
        loss = (F.cross_entropy(logits, rows.labels, reduction="none") * weights).sum()
        loss = loss + strength * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


@dataclass(frozen=True)
class Accuracy:
    """Accuracies over all old and cloned classes, 0..1."""

    old: float | None
    """None without images of old classes; `new` likewise."""
    new: float | None

    @property
    def average(self) -> float:
        """Mean of both sides, however many images each has; of one side if the other has none."""
        sides = [side for side in (self.old, self.new) if side is not None]
        return sum(sides) / len(sides)


def accuracy(logits: Tensor, labels: Tensor, old_classes: int) -> Accuracy:
    """Joint accuracy of logits (N, N_old + K) on both sides."""
    right = logits.argmax(1).eq(labels).double()
    is_new = labels >= old_classes
    sides = right[~is_new], right[is_new]
    return Accuracy(*(float(side.mean()) if len(side) else None for side in sides))


def head_logits(head: Head, inputs: HeadInputs) -> Tensor:
    """Logits (N, N_old + K) of a head."""
    with torch.no_grad():
        return torch.cat(head(inputs.old, inputs.own, inputs.features), dim=1)


def balanced_losses(head: Head, inputs: HeadInputs) -> Tensor:
    """Balanced cross-entropy of every row; its mean is the loss."""
    weights = balance(inputs.labels, inputs.old.shape[1]) * len(inputs.labels)
    return F.cross_entropy(head_logits(head, inputs), inputs.labels, reduction="none") * weights
