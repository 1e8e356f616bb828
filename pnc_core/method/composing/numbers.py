"""The numbers of a composition, fitted on rows of logits and pooled taps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.graph.positions import PositionInfo, Traced
from pnc_core.method.balance import ModuleLogits, Rows, fit_balance, fit_scores
from pnc_core.method.composing.ridge import PRIORS, Sums, Window
from pnc_core.module.composition import HeadKind
from pnc_core.module.head import tap_width

Join = Callable[[Tensor, list[ModuleLogits]], Tensor]


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression and its factor in the logits."""

    sums: Sums
    window: Window
    prior: float
    """k, in rows."""
    factor: float
    """g; 0: the scores do not count."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers that a set of modules needs on one target."""

    kind: HeadKind
    balance: list[tuple[float, float]]
    """Scale and offset of each module, in the order of the rows' answers."""
    weight: Tensor | None = None
    """(C, D) on the last pooled taps; None: there is no common head."""
    bias: Tensor | None = None
    """(C,)."""
    ridge: Ridge | None = None

    def logits(self, join: Join, rows: Rows) -> Tensor:
        """Logits, float64 (N, C), of rows whose features are all pooled taps."""
        read = rows if self.weight is None else rows.without_corrections()
        answers = [(c, own * s + o) for (c, own), (s, o) in zip(read.answers, self.balance, strict=True)]
        logits = join(read.old, answers)
        if self.weight is None or self.bias is None or rows.features is None:
            return logits
        seen = rows.features[:, rows.features.shape[1] - self.weight.shape[1] :]
        return logits + F.linear(seen.double(), self.weight.double(), self.bias.double())


def ridge_features(taps: Sequence[PositionInfo], features: Tensor, window: Window) -> Tensor:
    """The features (N, R) that a window selects from all pooled taps (N, D)."""
    width = window_width(taps, window)
    first = features.shape[1] - width
    return features[:, first : first + window.features]


def window_width(taps: Sequence[PositionInfo], window: Window) -> int:
    """Number of features of the window's taps, of which it may read the first ones only."""
    return sum(tap_width(tap.channels, tap.grid, 1) for tap in taps[len(taps) - window.taps :])


def fit_numbers(kind: HeadKind, join: Join, rows: Rows, window: Window | None, taps: Traced, folds: Tensor) -> Numbers:
    """Fit the numbers.

    Args:
        kind: The head.
        join: Takes the target's logits and the modules' logits, returns logits of all classes (N, C).
        rows: Logits and all pooled taps of N images.
        window: Features of the ridge regression; None: there are no sums, and `kind` is not `ridge`.
        taps: The traced target.
        folds: Fold of every image, int64 (N,): scores that the factor is fitted on are of regressions that have not
            seen the image.
    """
    ridge = None if window is None else _fit_ridge(join, rows, window, taps, folds)
    if kind == "ridge":
        assert ridge is not None
        balance, factor = fit_scores(join, rows.without_corrections(), ridge[1])
        made = replace(ridge[0], factor=factor)
        return with_ridge(Numbers("ridge", balance), made, taps.taps)
    kept = None if ridge is None else ridge[0]
    if kind == "affine":
        balance, _ = fit_balance(join, replace(rows, features=None))
        return Numbers("affine", balance, ridge=kept)
    balance, head = fit_balance(join, rows.without_corrections())
    assert head is not None
    return Numbers("joint", balance, head.weight.detach(), head.bias.detach(), kept)


def with_ridge(numbers: Numbers, ridge: Ridge, taps: Sequence[PositionInfo]) -> Numbers:
    """The same scales and offsets with the common head of a ridge regression.

    Args:
        numbers: Scales and offsets.
        ridge: The regression.
        taps: All taps of the target.
    """
    solved = ridge.sums.solve(ridge.prior) * ridge.factor
    slopes = solved[:, :-1] / ridge.sums.spread
    weight = slopes.new_zeros(len(slopes), window_width(taps, ridge.window))
    weight[:, : ridge.window.features] = slopes
    bias = solved[:, -1] - slopes @ ridge.sums.mean
    return replace(numbers, weight=weight.float(), bias=bias.float(), ridge=ridge)


def _fit_ridge(join: Join, rows: Rows, window: Window, traced: Traced, folds: Tensor) -> tuple[Ridge, Tensor]:
    """A regression with factor 0, and its scores (N, C) by regressions that have not seen the image."""
    assert rows.features is not None
    seen = ridge_features(traced.taps, rows.features, window)
    classes = join(rows.old[:1], [(c if c is None else c[:1], own[:1]) for c, own in rows.answers]).shape[1]
    start = Sums.start(seen, classes)
    parts = {int(fold): start.of(seen[folds == fold], rows.labels[folds == fold]) for fold in folds.unique()}
    total = start
    for part in parts.values():
        total = total + part
    z, hot = start.standardised(seen), F.one_hot(rows.labels, classes).double()
    scores = torch.stack([_scores(total, parts, z, folds, prior) for prior in PRIORS])
    best = int((scores - hot).square().sum((1, 2)).argmin())
    return Ridge(total, window, PRIORS[best], 0.0), scores[best]


def _scores(total: Sums, parts: dict[int, Sums], z: Tensor, folds: Tensor, prior: float) -> Tensor:
    scores = z.new_zeros(len(z), total.cross.shape[1])
    for fold, part in parts.items():
        # With a single fold, of equal images alone, nothing is left to fit on.
        left = total - part if len(parts) > 1 else total
        scores[folds == fold] = z[folds == fold] @ left.solve(prior).T
    return scores
