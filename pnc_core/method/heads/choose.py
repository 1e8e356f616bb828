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


def not_worse(loss: Tensor, best: Tensor) -> bool:
    """Is the mean loss above the best by at most one standard error of the paired difference?

    Args:
        loss: One number an image, (N,): views of one image are no independent evidence.
        best: The same of the best.
    """
    difference = loss - best
    standard_error = float(difference.std()) / math.sqrt(len(difference))
    return float(difference.mean()) <= standard_error
