"""Fit a head on cached logits and taps, and choose among heads by held-out images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.devices import full_precision
from pnc_core.graph.cost import Cost
from pnc_core.method.thresholds import bar_below
from pnc_core.module.head import Head, TapWindow, head_cost

GATE_LOSS = 0.02
"""Share of held-out new images that a locality gate may turn away."""
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


@dataclass(frozen=True)
class HeadChoice:
    """A kind of head with what it is fitted and judged on."""

    kind: str
    grid: int
    train: HeadInputs
    validation: HeadInputs
    locality_gate: int = 0
    """How many features the locality gate in front of it will read; 0: there will be none."""
    tap_window: TapWindow | None = None
    """Which taps the rows hold; None: all."""

    @property
    def cost(self) -> Cost:
        """What the head would cost, its locality gate included."""
        sides = self.train.old.shape[1], self.train.own.shape[1]
        return head_cost(self.kind, self.train.features.shape[1], *sides, locality_gate=self.locality_gate)


def _fit_locality_gate(train: HeadInputs, validation: HeadInputs, seen: int) -> tuple[Tensor, Tensor]:
    """Weight (seen,) and bias of a logistic regression of old against new on the first `seen` features."""
    old_classes = train.old.shape[1]
    sides = [_sides(rows, old_classes, seen) for rows in (train, validation)]
    fitted = min(
        ((_fit_on_some(sides[0], s), s) for s in STRENGTHS),
        key=lambda pair: float(balanced_losses(pair[0], sides[1]).mean()),
    )[0]
    held = sides[1].features[sides[1].labels == 1]
    found = F.linear(held, fitted.weight[0:1])[:, 0]
    return fitted.weight[0], -bar_below(found[:CHOICE_ROWS], GATE_LOSS)


def _behind(locality_gate: tuple[Tensor, Tensor], head: Head, rows: HeadInputs) -> Head:
    """The same head, run only where the locality gate opens; `rows` have the widths of what it reads."""
    weight, bias = locality_gate
    strict = Head(head.kind, rows.features.shape[1], rows.old.shape[1], rows.own.shape[1], locality_gate=len(weight))
    strict.load_state_dict(head.state_dict(), strict=False)
    strict.shutter_weight.data.copy_(weight)
    strict.shutter_bias.data.copy_(bias)
    return strict.requires_grad_(False)


def _sides(rows: HeadInputs, old_classes: int, seen: int) -> HeadInputs:
    """Old against new, told apart by the target's taps alone."""
    nothing = torch.zeros(len(rows.labels), 1)
    return HeadInputs(nothing, nothing, rows.features[:, :seen], (rows.labels >= old_classes).long())


def _fit_on_some(rows: HeadInputs, strength: float) -> Head:
    return fit_head("router", rows.some(CHOICE_ROWS), strength)


@dataclass(frozen=True)
class FittedHead:
    """The chosen head, and how it did on the images that were held out before it was fitted on all."""

    head: Head
    grid: int
    judged: Head
    """What the score is of: the same head before it learned from the held-out images."""
    score: Accuracy
    tap_window: TapWindow | None = None
    """Which taps it reads; None: all."""


def choose_head(choices: Sequence[HeadChoice]) -> FittedHead:
    """Take the head with the lowest loss on the held-out images.

    The loss is the balanced cross-entropy, which tells more than accuracy when there
    are few images. Kind and grid are chosen at the middle strength, then the strength for
    them. The winner is fitted again on all images.

    Args:
        choices: At least one.
    """
    middle = len(STRENGTHS) // 2
    first = min((_try(choice, STRENGTHS[middle]) for choice in choices), key=lambda tried: tried.loss)
    others = () if first.choice.kind == "affine" else (*STRENGTHS[:middle], *STRENGTHS[middle + 1 :])
    best = min((first, *(_try(first.choice, s, first.head) for s in others)), key=lambda tried: tried.loss)
    choice = best.choice
    score = accuracy(head_logits(best.head, choice.validation), choice.validation.labels, choice.train.old.shape[1])
    head = fit_head(choice.kind, choice.train.join(choice.validation), best.strength, best.head)
    return FittedHead(head, choice.grid, best.head, score, choice.tap_window)


@dataclass(frozen=True, eq=False)
class _Tried:
    choice: HeadChoice
    strength: float
    head: Head
    loss: float
    """Balanced cross-entropy on the held-out images."""


def _try(choice: HeadChoice, strength: float, start: Head | None = None) -> _Tried:
    head = fit_head(choice.kind, choice.train.some(CHOICE_ROWS), strength, start)
    return _Tried(choice, strength, head, float(balanced_losses(head, choice.validation).mean()))


@full_precision()
def shut(fitted: FittedHead, train: HeadInputs, validation: HeadInputs, seen: int) -> FittedHead:
    """A chosen head behind a locality gate that reads the first `seen` features, the target's own.

    It opens for all but 2 % of the held-out new images, so that accuracy is hardly touched and
    what stays shut costs nothing.

    Args:
        fitted: `affine` or `router`.
        train: Rows that the locality gate is fitted on.
        validation: Rows that say where it opens, and how good what has not learned from them is.
        seen: How many features are the target's.
    """
    locality_gate = _fit_locality_gate(train, validation, seen)
    judged, head = (_behind(locality_gate, part, train) for part in (fitted.judged, fitted.head))
    score = accuracy(head_logits(judged, validation), validation.labels, train.old.shape[1])
    return replace(fitted, head=head, judged=judged, score=score)


def balanced_losses(head: Head, inputs: HeadInputs) -> Tensor:
    """Balanced cross-entropy of every row; its mean is the loss."""
    weights = balance(inputs.labels, inputs.old.shape[1]) * len(inputs.labels)
    return F.cross_entropy(head_logits(head, inputs), inputs.labels, reduction="none") * weights


def not_worse(loss: Tensor, best: Tensor) -> bool:
    """Is the mean loss above the best by at most one standard error of the paired difference?

    Args:
        loss: One number an image, (N,): views of one image are no independent evidence.
        best: The same of the best.
    """
    difference = loss - best
    standard_error = float(difference.std()) / math.sqrt(len(difference))
    return float(difference.mean()) <= standard_error
