"""Choose among fitted heads by their loss on held-out images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pnc_core.graph.cost import Cost
from pnc_core.method.heads.fit import (
    CHOICE_ROWS,
    STRENGTHS,
    Accuracy,
    HeadInputs,
    Prepared,
    accuracy,
    balanced_losses,
    fit_head,
    head_logits,
    losses_of,
    prepared,
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
    logits: Tensor | None = None
    """Logits (N, N_old + K) of the held-out images, if they were divided into folds: of each fold by the head that the
    other folds choose, so that no image takes part in the choice of the head that judges it."""


def choose_head(choices: Sequence[HeadChoice], folds: Tensor | None = None, *, refit: bool = True) -> FittedHead:
    """Take the head with the lowest balanced cross-entropy on the held-out images.

    First the kind and the grid are chosen at the middle strength, then the strength. The winner is fitted again on all
    images. With few images the loss separates heads better than the accuracy does.

    Args:
        choices: At least one.
        folds: Fold of each of the first held-out rows, int64 (N,). These rows show the images themselves; their views
            follow, and take part in the choice only.
        refit: Fit the winner again on all images; without it the head has not seen the held-out images.
    """
    middle = len(STRENGTHS) // 2
    tried = _tried(choices, STRENGTHS[middle])
    first = min(tried, key=lambda one: one.loss)
    others = () if first.choice.kind == "affine" else (*STRENGTHS[:middle], *STRENGTHS[middle + 1 :])
    if others:
        rows = prepared(first.choice.train.some(CHOICE_ROWS))
        tried += [_try(first.choice, rows, strength, first.head) for strength in others]
    best = min((first, *tried[len(choices) :]), key=lambda one: one.loss)
    choice = best.choice
    score = accuracy(head_logits(best.head, choice.validation), choice.validation.labels, choice.train.old.shape[1])
    head = fit_head(choice.kind, choice.train.join(choice.validation), best.strength, best.head) if refit else best.head
    logits = None if folds is None else nested([(one.head, one.choice.validation) for one in tried], folds)
    return FittedHead(head, choice.grid, best.head, score, choice.tap_window, logits)


def nested(heads: Sequence[tuple[Head, HeadInputs]], folds: Tensor) -> Tensor:
    """Logits (N, N_old + K) of the first N rows: each fold's by the head of the lowest loss on the other folds.

    Args:
        heads: Heads, and the held-out rows that each of them reads.
        folds: Fold of each of the first rows, int64 (N,).
    """
    count, labels, old_classes = len(folds), heads[0][1].labels[: len(folds)], heads[0][1].old.shape[1]
    answers = torch.stack([head_logits(head, rows.first(count)) for head, rows in heads])
    return chosen_elsewhere(answers, labels, old_classes, folds)


def pick(losses: Tensor, *, simplest: bool = False) -> int:
    """Index of the head with the lowest mean loss.

    Args:
        losses: Balanced cross-entropy, (heads, N).
        simplest: The first head is the simplest one: it is picked unless the best one is better by more than a standard
            error.
    """
    best = int(losses.mean(1).argmin())
    return 0 if simplest and not_worse(losses[0], losses[best]) else best


def chosen_elsewhere(
    answers: Tensor, labels: Tensor, old_classes: int, folds: Tensor, *, simplest: bool = False
) -> Tensor:
    """Logits (N, C) of one head for each fold: the head that the other folds pick.

    Args:
        answers: Logits (heads, N, C).
        labels: int64 (N,), old classes first.
        old_classes: Number of old classes.
        folds: Fold of every image, int64 (N,).
        simplest: As for `pick`.
    """
    losses = torch.stack([losses_of(logits, labels, old_classes) for logits in answers])
    picked = answers[0].clone()
    for fold in folds.unique():
        inside = folds == fold
        others = losses if bool(inside.all()) else losses[:, ~inside]
        picked[inside] = answers[pick(others, simplest=simplest), inside]
    return picked


@dataclass(frozen=True, eq=False)
class _Candidate:
    choice: HeadChoice
    strength: float
    head: Head
    loss: float
    """Balanced cross-entropy on the held-out images."""


def _tried(choices: Sequence[HeadChoice], strength: float) -> list[_Candidate]:
    """Heads of all choices, in their order; choices with the same rows share one preparation of the rows."""
    found: dict[int, _Candidate] = {}
    for numbers in with_same_rows([choice.train for choice in choices]):
        rows = choices[numbers[0]].train.some(CHOICE_ROWS)
        ready = prepared(rows) if any(choices[number].kind != "affine" for number in numbers) else rows
        for number in numbers:
            choice = choices[number]
            found[number] = _try(choice, rows if choice.kind == "affine" else ready, strength)
    return [found[number] for number in range(len(choices))]


def with_same_rows(rows: Sequence[HeadInputs]) -> list[list[int]]:
    """Numbers of the entries, grouped by identity."""
    groups: dict[int, list[int]] = {}
    for number, one in enumerate(rows):
        groups.setdefault(id(one), []).append(number)
    return list(groups.values())


def _try(choice: HeadChoice, rows: HeadInputs | Prepared, strength: float, start: Head | None = None) -> _Candidate:
    head = fit_head(choice.kind, rows, strength, start)
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
