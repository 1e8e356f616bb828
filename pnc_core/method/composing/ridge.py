"""Ridge regression of class labels on the target's pooled taps, from sums that can grow.

With features f of an image (R of them), their mean m and spread s over the first images, z = ((f - m) / s, 1) and the
one-hot label y, the sums over all images are

    G = sum z z'          (R + 1, R + 1), the Gram matrix
    X = sum z y'          (R + 1, C), one column of sums for each class

and the weights that minimise sum |y - W z|^2 + k |W without its last column|^2 are

    W' = (G + k I_0)^-1 X,      I_0 = identity with a 0 in the last place.

m, s and k are fixed by the first images. Sums of further images are added; sums of a class without images are 0. So the
weights from sums that grew step by step equal those from all images at once. The features are those of the target,
which no module changes, so that sums stay valid when a module is attached or detached.

The sums determine the number, the mean and the common scatter of the images of each class. Multiplying the matrix of
deviations from the class means by any orthogonal matrix that keeps the class means leaves G and X as they are. Let n be
the number of images and C' the number of classes that have images. If n - C' >= R, the scatter can have full rank. Then
no linear function of a single image's features follows from the sums, unless it has one value for all images of a
class. A class of one image would show its features as the mean. `check_private` therefore requires n - C' >= R and
`MIN_PER_CLASS` different images of each class. Each step must fulfil this by its own images, because the difference of
two compositions holds the sums of one step. This is no differential privacy: with the features of all images but one,
the sums show the missing one.

Own choice. A ridge regression, unlike a cross-entropy fit, needs only sums of the images.

References:
    Hoerl, Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pnc_core.errors import DataError
from pnc_core.graph.positions import PositionInfo
from pnc_core.module.head import tap_width

MIN_PER_CLASS = 10
"""Smallest number of different images of a class whose sums are kept. The mean of ten images shows none of them. Own
choice."""
MOST_FEATURES = 2048
"""Largest number of features by default: the Gram matrix then takes 17 MB."""
PRIORS = (1.0, 10.0, 100.0, 1000.0)
"""Candidate precisions k of the weights' prior, in rows."""


@dataclass(frozen=True)
class Window:
    """Features of the target that the sums read: the first `features` numbers of its last `taps` pooled taps."""

    taps: int
    features: int


def window_of(taps: Sequence[PositionInfo], most: int) -> Window | None:
    """The last taps with at most `most` features; the means of the last tap if all of it is too wide; else None.

    Args:
        taps: The target's taps, pooled to one cell each.
        most: Largest number of features.
    """
    found, width = None, 0
    for count, tap in enumerate(reversed(taps), start=1):
        width += tap_width(tap.channels, tap.grid, 1)
        if width > most:
            break
        found = Window(count, width)
    last = taps[-1].channels
    return found or (Window(1, last) if last <= most else None)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over images; all tensors are float64 and are not changed."""

    mean: Tensor
    """m, (R,)."""
    spread: Tensor
    """s, (R,), above 0."""
    gram: Tensor
    """G, (R + 1, R + 1), symmetric."""
    cross: Tensor
    """X, (R + 1, C)."""

    @classmethod
    def start(cls, features: Tensor, classes: int) -> "Sums":
        """Sums of no image, with the mean and the spread of features (N, R), N at least 2."""
        exact = features.double()
        width = exact.shape[1]
        zeros = exact.new_zeros(width + 1, width + 1), exact.new_zeros(width + 1, classes)
        return cls(exact.mean(0), exact.std(0).clamp_min(1e-6), *zeros)

    def standardised(self, features: Tensor) -> Tensor:
        """z, float64 (N, R + 1), of features (N, R)."""
        z = (features.double() - self.mean) / self.spread
        return torch.cat([z, z.new_ones(len(z), 1)], dim=1)

    def of(self, features: Tensor, labels: Tensor) -> "Sums":
        """Sums of other images on the same mean and spread.

        Args:
            features: (N, R).
            labels: int64 (N,), 0 to C - 1.
        """
        z = self.standardised(features)
        hot = torch.nn.functional.one_hot(labels, self.cross.shape[1]).double()
        return Sums(self.mean, self.spread, z.T @ z, z.T @ hot)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.mean, self.spread, self.gram + other.gram, self.cross + other.cross)

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(self.mean, self.spread, self.gram - other.gram, self.cross - other.cross)

    def widened(self, places: Sequence[int | None]) -> "Sums":
        """The same sums with other columns of classes.

        Args:
            places: For each new column its earlier column; None: the class has no image yet.
        """
        none = self.cross.new_zeros(len(self.cross))
        columns = [none if place is None else self.cross[:, place] for place in places]
        return Sums(self.mean, self.spread, self.gram, torch.stack(columns, dim=1))

    @property
    def counts(self) -> Tensor:
        """Number of images of each class, int64 (C,)."""
        return self.cross[-1].round().long()

    def solve(self, prior: float) -> Tensor:
        """W, float64 (C, R + 1), for the prior's precision k > 0; at least one image must be summed."""
        weights: Tensor = torch.linalg.solve(self.gram + self.penalty(prior), self.cross)
        return weights.T

    def penalty(self, prior: float) -> Tensor:
        """k I_0, float64 (R + 1, R + 1)."""
        diagonal = self.gram.new_full((len(self.gram),), prior)
        diagonal[-1] = 0.0
        return diagonal.diag()


def check_private(counts: Tensor, features: int, where: str) -> None:
    """Check that sums of these images show no single image; the module's docstring gives the reason.

    Args:
        counts: Number of different images of each class, int64 (C,); classes without images do not count.
        features: R.
        where: Begins the message.

    Raises:
        DataError: there are too few images, in all or of a class.
    """
    present = counts[counts > 0]
    needed, have = features + len(present), int(present.sum())
    few = int(present.min()) if len(present) else 0
    if have < needed or few < MIN_PER_CLASS:
        raise DataError(
            f"{where}: expected at least {needed} different images, and {MIN_PER_CLASS} of each class, so that the "
            f"sums of {features} features show no single image, got {have}, and {few} of a class; add images, or take "
            "fewer features"
        )


def packed(gram: Tensor) -> Tensor:
    """The lower triangle of a symmetric matrix (n, n), row by row, (n (n + 1) / 2,)."""
    rows, columns = torch.tril_indices(len(gram), len(gram))
    return gram[rows, columns]


def unpacked(triangle: Tensor, size: int) -> Tensor:
    """The symmetric matrix (size, size) of `packed`."""
    gram = triangle.new_zeros(size, size)
    rows, columns = torch.tril_indices(size, size)
    gram[rows, columns] = triangle
    gram[columns, rows] = triangle
    return gram
