"""Fit heads on folds of the images, so that every image is judged by a head that has not seen it.

With few images a held-out quarter is too small to choose a head and to measure it. Cross-fitting uses every image for
both: the images are divided into folds, and each fold is judged by heads that were fitted on the other folds. Views of
an image, and images with the same pixels, are always in one fold.

The head is chosen by the mean loss over all folds, and fitted again on all images. For its accuracy the choice is
repeated for each fold without that fold's losses, so that no image takes part in the choice of the head that judges it.

References:
    Stone, "Cross-validatory choice and assessment of statistical predictions", 1974.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pnc_core.images import ImageSet
from pnc_core.method.heads.choose import FittedHead, chosen_elsewhere, pick, with_same_rows
from pnc_core.method.heads.fit import HeadInputs, Prepared, accuracy, fit_head, head_logits, losses_of, prepared
from pnc_core.module.head import Head, TapWindow

FOLDS = 5
STEPS = 40
"""Largest number of L-BFGS steps for a head that judges a fold; the loss hardly changes after that."""


def folds_of(images: ImageSet, generator: torch.Generator, count: int = FOLDS) -> Tensor:
    """Fold of every image, int64 (N,), 0 to `count` - 1.

    Each class is spread evenly over the folds, and images with equal pixels share one.
    """
    fold = torch.full((len(images),), -1)
    of_group: dict[int, int] = {}
    for label in range(len(images.classes)):
        members = torch.nonzero(images.labels == label).flatten()
        for row in members[torch.randperm(len(members), generator=generator)].tolist():
            group = int(images.groups[row])
            fold[row] = of_group.setdefault(group, len(of_group) % count)
    return fold


@dataclass(frozen=True)
class Candidate:
    """A head to try: its kind, its strength, and the rows of all images that it reads."""

    kind: str
    strength: float
    grid: int
    rows: HeadInputs
    """The images first, then their views."""
    tap_window: TapWindow | None = None
    """The taps that the rows hold; None: all taps."""
    odds: bool = False
    """Both sides of the rows are log-odds."""

    def fit(self, rows: HeadInputs | Prepared, start: Head | None = None, most_steps: int = 200) -> Head:
        """The head of this kind and strength, fitted on rows like those of the candidate."""
        return fit_head(self.kind, rows, self.strength, start, most_steps=most_steps, odds=self.odds)


def cross_fit(candidates: Sequence[Candidate], shown: Tensor, folds: Tensor, *, simplest: bool = False) -> FittedHead:
    """Choose a head by cross-validation.

    Args:
        candidates: At least one, with equal numbers of rows.
        shown: Image of every row, int64 (rows,); the first N rows show the images in order.
        folds: Fold of every image, int64 (N,).
        simplest: The first candidate is taken unless another one is surely better, see `pick`.

    Returns:
        The head, fitted on all rows. Its score and logits are of heads that have not seen the image.
    """
    count, rows = len(folds), candidates[0].rows
    labels, old_classes = rows.labels[:count], rows.old.shape[1]
    answers = _answers(candidates, folds[shown], folds)
    losses = torch.stack([losses_of(logits, labels, old_classes) for logits in answers])
    best = candidates[pick(losses, simplest=simplest)]
    logits = chosen_elsewhere(answers, labels, old_classes, folds, simplest=simplest)
    head = best.fit(best.rows)
    return FittedHead(head, best.grid, head, accuracy(logits, labels, old_classes), best.tap_window, logits)


def _answers(candidates: Sequence[Candidate], fold_of_row: Tensor, folds: Tensor) -> Tensor:
    """Logits (candidates, N, C) of the images; each fold's by heads that were fitted on the rows of the other folds."""
    images = candidates[0].rows.first(len(folds))
    answers = images.old.new_zeros(len(candidates), len(folds), images.old.shape[1] + images.own.shape[1])
    for fold in folds.unique():
        inside = folds == fold
        for number, head in _fitted(candidates, fold_of_row != fold):
            answers[number, inside] = head_logits(head, candidates[number].rows.first(len(folds)).take(inside))
    return answers


def _fitted(candidates: Sequence[Candidate], others: Tensor) -> Iterator[tuple[int, Head]]:
    """Number of each candidate and its head, fitted on the rows at bool `others`.

    Candidates with the same rows share one preparation of the rows. Of equal kinds the strongest prior comes first,
    because its fit takes the fewest steps; each fit starts at the one before.
    """
    for numbers in with_same_rows([one.rows for one in candidates]):
        rows = candidates[numbers[0]].rows
        # With a single fold, of equal images alone, nothing is left to fit on.
        left = rows.take(others) if bool(others.any()) else rows
        ready = prepared(left) if any(candidates[n].kind != "affine" for n in numbers) else None
        heads: dict[tuple[str, bool], Head] = {}
        for number in sorted(numbers, key=lambda n: -candidates[n].strength):
            one = candidates[number]
            start = heads.get((one.kind, one.odds))
            head = one.fit(left if ready is None or one.kind == "affine" else ready, start, STEPS)
            heads[one.kind, one.odds] = head
            yield number, head
