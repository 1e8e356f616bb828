"""Labels that may be wrong: images of which a network is sure, and which have another label.

An image is judged by the network that knows the class of its label: an old class by the target, a cloned class by the
source. A network is sure of an image if its largest probability is at least `SURE`. If more of these images have
another label than errors of such networks explain, some labels are wrong, or the images are unlike those that the
networks were trained on. Both make measured accuracies too low.

Own choice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pnc_core.module.verdict import wilson

SURE = 0.95
"""Least probability of the predicted class."""
USUAL = 0.05
"""Share of other labels among sure images that errors of the networks explain."""


@dataclass(frozen=True)
class Doubt:
    """Images with doubtful labels."""

    images: int
    """Number of images."""
    sure: int
    """Number of images of which the network is sure."""
    other: int
    """Number of sure images whose label is another class."""

    @property
    def most(self) -> float:
        """Upper end of the 90 % interval of the share of doubtful labels, 0..1."""
        return wilson(self.other, self.sure)[1]

    @property
    def text(self) -> str:
        """The warning, a clause."""
        return (
            f"labels may be wrong: of {self.images:,} images the networks are sure of {self.sure:,}, and "
            f"{self.other:,} of these ({self.other / self.sure:.0%}) have another label, "
            "so the true accuracies may be higher"
        )


def doubt_of(labels: Tensor, old: Tensor, every: Tensor, cloned: tuple[int, ...]) -> Doubt | None:
    """Compare labels with the networks' predictions.

    Args:
        labels: int64 (N,), old classes first, then the cloned ones.
        old: Probabilities of the target, (N, N_old).
        every: Probabilities of the source among all its classes, (N, C).
        cloned: Indices of the cloned classes among the source's.

    Returns:
        None if so few sure images have another label that errors of the networks explain them.
    """
    is_new = labels >= old.shape[1]
    rows = torch.tensor([*range(old.shape[1]), *cloned])
    sure = torch.where(is_new, every.amax(1), old.amax(1)) >= SURE
    predicted = torch.where(is_new, every.argmax(1), old.argmax(1))
    other = sure & (predicted != rows[labels])
    found = Doubt(len(labels), int(sure.sum()), int(other.sum()))
    return found if found.sure and wilson(found.other, found.sure)[0] > USUAL else None
