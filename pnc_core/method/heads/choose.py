"""Choose among fitted heads by their loss on held-out images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pnc_core.graph.cost import Cost
from pnc_core.method.heads.fit import (
    CHOICE_ROWS,
    STRENGTHS,
    Accuracy,
    HeadInputs,
    accuracy,
    balanced_losses,
    fit_head,
    head_logits,
)
from pnc_core.module.head import Head, TapWindow, head_cost


@dataclass(frozen=True)
class HeadChoice:
    """A kind of head, with the rows that fit it and the rows that judge it."""

    kind: str
    grid: int
    train: HeadInputs
    validation: HeadInputs
    locality_gate: int = 0
    """Number of features that its locality gate will read; 0: it gets no locality gate."""
    tap_window: TapWindow | None = None
    """The taps that the rows hold; None: all taps."""

    @property
    def cost(self) -> Cost:
        """Cost of the head, including its locality gate."""
        sides = self.train.old.shape[1], self.train.own.shape[1]
        return head_cost(self.kind, self.train.features.shape[1], *sides, locality_gate=self.locality_gate)


@dataclass(frozen=True)
class FittedHead:
    """The chosen head, fitted on all images, and its score on the held-out images before that last fit."""

    head: Head
    grid: int
    judged: Head
    """The same head, fitted on the training images only."""
    score: Accuracy
    """Accuracy of `judged` on the held-out images."""
    tap_window: TapWindow | None = None
    """The taps that the head reads; None: all taps."""


def choose_head(choices: Sequence[HeadChoice]) -> FittedHead:
    """Take the head with the lowest balanced cross-entropy on the held-out images.

    First the kind and the grid are chosen at the middle strength, then the strength. The winner is fitted again on all
    images. With few images the loss separates heads better than the accuracy does.

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
class _Candidate:
    choice: HeadChoice
    strength: float
    head: Head
    loss: float
    """Balanced cross-entropy on the held-out images."""


def _try(choice: HeadChoice, strength: float, start: Head | None = None) -> _Candidate:
    head = fit_head(choice.kind, choice.train.some(CHOICE_ROWS), strength, start)
    return _Candidate(choice, strength, head, float(balanced_losses(head, choice.validation).mean()))


def not_worse(loss: Tensor, best: Tensor) -> bool:
    """Is mean(d) <= std(d) / sqrt(N) for the paired differences d = loss - best?

    Args:
        loss: Losses (N,), one per image. Average over an image's views first: views are not independent.
        best: Losses (N,) of the best candidate on the same images.
    """
    difference = loss - best
    standard_error = float(difference.std()) / math.sqrt(len(difference))
    return float(difference.mean()) <= standard_error
