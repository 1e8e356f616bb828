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
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.bars import bar_below
from pnc_core.cost import Cost
from pnc_core.devices import full_precision
from pnc_core.positions import Traced

SHUT = -1e4
"""Logit of the cloned classes where a strict module is not run: finite, with probability zero."""
SHUTTER_LOSS = 0.02
"""Share of held-out new images that a shutter may turn away."""
SMALL_FIT, LARGE_FIT_ITERATIONS, WARM_ITERATIONS = 2_000_000, 60, 20
"""Features times rows up to which a head is fitted to the last digit; beyond, so many steps of L-BFGS are enough,
and fewer where it goes on from a head of the same kind."""
CHOICE_ROWS = 20_000
"""Rows that the choice between heads is made on, at most; the chosen one is fitted on all."""
STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Weight decays of gate and correction among which validation chooses."""


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


def head_cost(kind: str, features: int, old: int, new: int, shutter: int = 0) -> Cost:
    """What a head costs; arguments as for `Head`."""
    rows, gate = _rows(kind, old, new), shutter + 1 if shutter else 0
    return Cost(2 + rows * (features + 1) + gate, rows * features + shutter)


class Head(nn.Module):
    """(old logits, module logits, taps) -> (old logits, new logits)."""

    def __init__(self, kind: str, features: int, old: int, new: int, shutter: int = 0) -> None:
        """`shutter`: how many features, the target's own, decide whether the module is run; 0: it always is."""
        super().__init__()
        self.kind, self.strict = kind, shutter > 0
        rows = _rows(kind, old, new)
        self.scale = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))
        self.weight = nn.Parameter(torch.zeros(rows, features if rows else 0))
        self.bias = nn.Parameter(torch.zeros(rows))
        if shutter:
            self.shutter_weight = nn.Parameter(torch.zeros(shutter))
            self.shutter_bias = nn.Parameter(torch.zeros(()))

    @property
    def needs_taps(self) -> bool:
        """Whether it looks at pooled taps at all: an affine head without a shutter does not."""
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
class Reach:
    """How far back from the end a head reads."""

    target: int
    """How many taps of the target."""
    module: int


LAST = Reach(1, 1)


@dataclass(frozen=True)
class HeadChoice:
    """A kind of head with what it is fitted and judged on."""

    kind: str
    grid: int
    train: HeadInputs
    validation: HeadInputs
    shutter: int = 0
    """How many features the shutter in front of it will read; 0: there will be none."""
    reach: Reach | None = None
    """Which taps the rows hold; None: all."""

    @property
    def cost(self) -> Cost:
        """What the head would cost, its shutter included."""
        sides = self.train.old.shape[1], self.train.own.shape[1]
        return head_cost(self.kind, self.train.features.shape[1], *sides, shutter=self.shutter)


def _shutter(train: HeadInputs, validation: HeadInputs, seen: int) -> tuple[Tensor, Tensor]:
    """Weight (seen,) and bias of a logistic regression of old against new on the first `seen` features."""
    old_classes = train.old.shape[1]
    sides = [_sides(rows, old_classes, seen) for rows in (train, validation)]
    fitted = min(
        ((_fit_on_some(sides[0], s), s) for s in STRENGTHS),
        key=lambda pair: float(balanced_losses(pair[0], sides[1]).mean()),
    )[0]
    held = sides[1].features[sides[1].labels == 1]
    found = F.linear(held, fitted.weight[0:1])[:, 0]
    return fitted.weight[0], -bar_below(found[:CHOICE_ROWS], SHUTTER_LOSS)


def _behind(shutter: tuple[Tensor, Tensor], head: Head, rows: HeadInputs) -> Head:
    """The same head, run only where the shutter opens; `rows` have the widths of what it reads."""
    weight, bias = shutter
    strict = Head(head.kind, rows.features.shape[1], rows.old.shape[1], rows.own.shape[1], shutter=len(weight))
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
    reach: Reach | None = None
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
    return FittedHead(head, choice.grid, best.head, score, choice.reach)


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
    """A chosen head behind a shutter that reads the first `seen` features, the target's own.

    It opens for all but 2 % of the held-out new images, so that accuracy is hardly touched and
    what stays shut costs nothing.

    Args:
        fitted: `affine` or `router`.
        train: Rows that the shutter is fitted on.
        validation: Rows that say where it opens, and how good what has not learned from them is.
        seen: How many features are the target's.
    """
    shutter = _shutter(train, validation, seen)
    judged, head = (_behind(shutter, part, train) for part in (fitted.judged, fitted.head))
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
