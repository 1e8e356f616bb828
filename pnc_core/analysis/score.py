"""Accuracy as a count of images, its interval, and its distance from guessing."""

from dataclasses import dataclass
from math import sqrt

Z = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""


@dataclass(frozen=True)
class Score:
    """Number of images that a network classifies correctly."""

    right: int
    images: int
    """Number of all images, at least 1."""

    @property
    def share(self) -> float:
        """Accuracy, 0..1."""
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, 0..1.

        References:
            Wilson, 1927. Unlike the normal interval it is correct near 0 and 1 and for few images.
        """
        p, n = self.share, self.images
        middle, spread = p + Z**2 / (2 * n), Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        low, high = ((middle + sign * spread) / (1 + Z**2 / n) for sign in (-1, 1))
        return max(0.0, low), min(1.0, high)

    def is_above(self, other: "Score", gain: float) -> bool:
        """Whether this accuracy is higher by `gain` at least, and the two intervals do not overlap."""
        return self.share - other.share >= gain and self.interval[0] > other.interval[1]

    def is_near_chance(self, classes: int, times: float = 2.0) -> bool:
        """Whether the whole interval lies near the accuracy of guessing, or below it.

        Args:
            classes: Classes that compete.
            times: Multiple of chance = 1 / `classes` that the interval must reach. With less than five classes
                twice the chance is nearly 1, so the distance is at most a quarter of 1 - chance.

        References:
            Own choice. Few images have a wide interval, so they never prove that a network guesses.
        """
        return self.interval[1] < _near(classes, times)

    def is_off_chance(self, classes: int) -> bool:
        """Whether the whole interval lies above the accuracies that are near chance."""
        return self.interval[0] > _near(classes, 2.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{percent(self.share)} ({percent(low)} to {percent(high)}) of {self.images:,} images"


def _near(classes: int, times: float) -> float:
    chance = 1 / classes
    return chance + (times - 1) * min(chance, (1 - chance) / 4)


def percent(share: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * share:.1f} %"
