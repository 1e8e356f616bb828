"""Fit a head on cached logits and taps, and measure it.

The loss is the balanced cross-entropy, in which old and new images weigh half each:

    L = (mean over old images of CE + mean over new images of CE) / 2

A fit is a maximum a posteriori estimate around both networks side by side: the prior mean is scale 1 and weights 0. The
prior of the scale s has a fixed standard deviation, so that its influence falls with the number N of rows:

    P = (s - 1)^2 / (2 N SCALE_SPREAD^2)

With a handful of images, which any scale separates, it keeps the scale of the networks' own probabilities. Where both
sides are log-odds, as for the whole source, the scale is nearly known, and the offset o and the biases b have a prior
too:

    P = (s - 1)^2 / (2 N ODDS_SCALE_SPREAD^2) + (o^2 + |b|^2) / (2 N ODDS_OFFSET_SPREAD^2)

Logits of two networks have no common zero, and so no prior of the offset. The strength of the weights' prior is chosen
(`pnc_core.method.heads.choose`). Own choice.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.devices import full_precision
from pnc_core.module.head import Head

SMALL_FIT, SPANNED, LARGE_FIT_ITERATIONS, WARM_ITERATIONS = 2_000_000, 8_000_000, 60, 20
"""A fit runs in float64 until it converges if it is small, see `is_small`.

A larger fit runs in float32 for `LARGE_FIT_ITERATIONS` steps of L-BFGS, or for `WARM_ITERATIONS` steps if it starts
from an already fitted head.
"""
CHOICE_ROWS = 20_000
"""Largest number of rows for the choice between heads. The chosen head is fitted again on all rows."""
STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Candidate weight decays for the weights on the taps; the held-out images choose one."""
SCALE_SPREAD = 0.5
"""Standard deviation of the prior of a head's scale."""
ODDS_SCALE_SPREAD, ODDS_OFFSET_SPREAD = 0.1, 0.5
"""Standard deviations of the priors of the scale, and of offset and biases, where both sides are log-odds. Development
splits of CIFAR-10 and of a public ResNet-20, eight draws of 1 to 10 images of a class: an affine head was 0.06 points
below both networks side by side at worst and 1.0 above them at best; with 0.5 and 0.5 1.0 below at worst."""


@dataclass(frozen=True)
class HeadInputs:
    """The inputs and labels that a head is fitted on, one row per image."""

    old: Tensor
    """The target's logits (N, N_old)."""
    own: Tensor
    """The module's logits (N, K)."""
    features: Tensor
    """Pooled taps (N, D)."""
    labels: Tensor
    """int64 (N,): old classes first, then the cloned ones."""

    def take(self, rows: Tensor) -> "HeadInputs":
        """The rows at int64 or bool `rows`."""
        return HeadInputs(*(column[rows] for column in vars(self).values()))

    def first(self, count: int) -> "HeadInputs":
        """The first `count` rows."""
        return HeadInputs(*(column[:count] for column in vars(self).values()))

    def some(self, count: int) -> "HeadInputs":
        """A random sample of `count` rows, or all rows if there are fewer; inputs of equal size give equal rows."""
        if len(self.labels) <= count:
            return self
        chosen = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(0))[:count].sort().values
        return HeadInputs(*(column[chosen] for column in vars(self).values()))

    def join(self, other: "HeadInputs") -> "HeadInputs":
        """The rows of both."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return HeadInputs(*(torch.cat(pair) for pair in pairs))


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows as every fit reads them, whatever its kind and strength: `prepared` makes them once for several fits."""

    rows: HeadInputs
    """Features standardised to z = (taps - mean) / std, as coordinates (N, r) in the space that the rows of z span if
    there are fewer rows than features."""
    mean: Tensor
    """(D,)."""
    std: Tensor
    """(D,)."""
    span: tuple[Tensor, Tensor] | None
    """z (N, D), and a matrix M (N, r) with orthonormal M'z; None if the rows hold z itself."""

    def into(self, weight: Tensor) -> Tensor:
        """Weights (rows, columns of `rows`) from weights (rows, D) on the taps."""
        weight = weight.to(self.std) * self.std
        return weight if self.span is None else weight @ self.span[0].T @ self.span[1]

    def out_of(self, weight: Tensor) -> Tensor:
        """Weights float64 (rows, D) on the taps from weights (rows, columns of `rows`)."""
        if self.span is not None:
            weight = weight @ self.span[1].T @ self.span[0]
        return weight.double() / self.std.double()


def is_small(count: int, width: int, classes: int) -> bool:
    """Whether a fit runs in float64. It has at most `SMALL_FIT` numbers, in as many columns as there are rows if there
    are fewer rows than features and `SPANNED` bounds the memory for this.

    Args:
        count: Number of rows.
        width: Number of features.
        classes: Number of logits.
    """
    columns = min(count, width) if count * width <= SPANNED else width
    return count * max(columns, classes) <= SMALL_FIT


@full_precision()
def prepared(inputs: HeadInputs) -> Prepared:
    """Standardise the features, and reduce them to as many columns as there are rows.

    The weights that minimise a loss plus |W|^2 lie in the space that the rows span, so that the fit has r <= N instead
    of D columns.
    """
    count, width = inputs.features.shape
    classes = inputs.old.shape[1] + inputs.own.shape[1]
    # For large fits float64 would take twice as long and change nothing that matters.
    dtype = torch.float64 if is_small(count, width, classes) else torch.float32
    features = inputs.features.to(dtype)
    mean = features.mean(0)
    std = features.std(0).clamp_min(1e-6) if width else mean  # torch warns of a spread without columns
    z, span = (features - mean) / std, None
    if dtype == torch.float64 and count < width:
        squares, directions = torch.linalg.eigh(z @ z.T)
        kept = squares > squares.max().clamp_min(1e-12) * 1e-10
        lengths, directions = squares[kept].sqrt(), directions[:, kept]
        z, span = directions * lengths, (z, directions / lengths)
    return Prepared(HeadInputs(inputs.old.to(dtype), inputs.own.to(dtype), z, inputs.labels), mean, std, span)


@full_precision()
def fit_head(
    kind: str,
    inputs: HeadInputs | Prepared,
    strength: float = 1e-2,
    start: Head | None = None,
    *,
    most_steps: int = 200,
    odds: bool = False,
) -> Head:
    """Minimise L + P + strength |W|^2, where L is the balanced cross-entropy, P the prior of the scale and W the
    weights on standardised taps.

    The fit uses z = (taps - mean) / std. The returned head reads the taps themselves: W := W / std, b := b - W mean.

    Args:
        kind: `affine`, `router` or `joint`.
        inputs: Rows of the training images, or the same `prepared`.
        strength: Weight decay on the standardised weights.
        start: A fitted head of the same kind, as the starting point.
        most_steps: Largest number of steps of a small fit, which usually converges earlier.
        odds: Both sides are log-odds, so that offset and biases have a prior.
    """
    if isinstance(inputs, HeadInputs):
        inputs = prepared(inputs if kind != "affine" else replace(inputs, features=inputs.features[:, :0]))
    ready, rows = inputs, inputs.rows
    old_classes, dtype = rows.old.shape[1], rows.features.dtype
    head = Head(kind, rows.features.shape[1], old_classes, rows.own.shape[1]).to(dtype)
    if start is not None:
        _start_at(head, start, ready)
    iterations = most_steps
    if dtype == torch.float32:
        iterations = LARGE_FIT_ITERATIONS if start is None else WARM_ITERATIONS
    spreads = (ODDS_SCALE_SPREAD, ODDS_OFFSET_SPREAD) if odds else (SCALE_SPREAD, math.inf)
    _minimise(head, rows, balance(rows.labels, old_classes).to(dtype), (strength, *spreads), iterations)
    head.double()
    if kind != "affine":
        head.weight.data = ready.out_of(head.weight.data)
        head.bias.data -= head.weight.data @ ready.mean.double()
    return head.float().requires_grad_(False)


@torch.no_grad()
def _start_at(head: Head, start: Head, ready: Prepared) -> None:
    """Set a head on prepared rows to the projection of a fitted head on taps."""
    head.scale.copy_(start.scale)
    head.offset.copy_(start.offset)
    if head.kind != "affine":
        head.weight.copy_(ready.into(start.weight))
        head.bias.copy_(start.bias.to(ready.mean) + start.weight.to(ready.mean) @ ready.mean)


def balance(labels: Tensor, old_classes: int) -> Tensor:
    """Row weights float64 (N,): 1 / (2 N_old) for an old image, 1 / (2 N_new) for a new image."""
    is_new = labels >= old_classes
    share_new = is_new.double().mean().clamp(1e-9, 1 - 1e-9)
    return torch.where(is_new, 0.5 / share_new, 0.5 / (1 - share_new)) / len(labels)


def _minimise(
    head: Head, rows: HeadInputs, weights: Tensor, priors: tuple[float, float, float], iterations: int
) -> None:
    """Minimise; `priors` are the strength of the weights' prior, and standard deviations of scale and offsets."""
    strength, scale_spread, offset_spread = priors
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=iterations, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.cat(head(rows.old, rows.own, rows.features), dim=1)
        loss = (F.cross_entropy(logits, rows.labels, reduction="none") * weights).sum()
        loss = loss + strength * head.weight.square().sum()
        shifts = head.offset.square() + head.bias.square().sum()
        prior = ((head.scale - 1) / scale_spread).square() + shifts / offset_spread**2
        loss = loss + prior / (2 * len(rows.labels))
        loss.backward()
        return loss

    optimizer.step(closure)


@dataclass(frozen=True)
class Accuracy:
    """Accuracies over all old and cloned classes, 0..1."""

    old: float | None
    """Accuracy on images of old classes; None if there are none."""
    new: float | None
    """Accuracy on images of cloned classes; None if there are none."""

    @property
    def average(self) -> float:
        """(old + new) / 2, whatever the numbers of images; the other accuracy alone if one is None."""
        sides = [side for side in (self.old, self.new) if side is not None]
        return sum(sides) / len(sides)


def accuracy(logits: Tensor, labels: Tensor, old_classes: int) -> Accuracy:
    """Accuracies of logits (N, N_old + K) on old and on new images; all classes compete."""
    right = logits.argmax(1).eq(labels).double()
    is_new = labels >= old_classes
    sides = right[~is_new], right[is_new]
    return Accuracy(*(float(side.mean()) if len(side) else None for side in sides))


def head_logits(head: Head, inputs: HeadInputs) -> Tensor:
    """Logits (N, N_old + K) of a head."""
    with torch.no_grad():
        return torch.cat(head(inputs.old, inputs.own, inputs.features), dim=1)


def balanced_losses(head: Head, inputs: HeadInputs) -> Tensor:
    """Weighted cross-entropy (N,) of every row; the mean over rows is the balanced cross-entropy."""
    return losses_of(head_logits(head, inputs), inputs.labels, inputs.old.shape[1])


def losses_of(logits: Tensor, labels: Tensor, old_classes: int) -> Tensor:
    """Weighted cross-entropy (N,) of logits (N, N_old + K); the mean over rows is the balanced cross-entropy."""
    weights = balance(labels, old_classes) * len(labels)
    return F.cross_entropy(logits, labels, reduction="none") * weights
