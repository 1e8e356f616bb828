"""Accuracy of a module beside those of its alternatives on the same images, and a verdict in words.

Alternatives are answers to the same task that need no module: the target alone, both whole networks side by side (each
network's softmax over all its classes), and a linear probe on the target's taps. A composition (`module` in the
figures) is also compared with the same modules without it.

An accuracy is the mean of the accuracies on old and on new images. All intervals have a level of 90 %. Wilson's
interval holds for one share. For a mean of shares, and for a difference, the distances between estimate and limits are
combined as if they were standard errors ("method of variance estimates recovery"); a difference of two shares on the
same images takes their correlation into account.

References:
    Wilson, 1927; Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", 1998 (method 10, without its continuity correction); Zou, Donner, "Construction of confidence limits
    about effect measures", 2008.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

LEVEL, Z = 0.9, 1.644854
"""Level of all intervals, and the quantile of the normal distribution for it."""
Alternative = Literal["alone", "ensemble", "probe", "plain"]
Outcome = Literal["better", "equal", "worse"]
Fitting = Literal["cross-fitted", "held out"]
NAMES: dict[str, str] = {
    "alone": "the target alone",
    "ensemble": "both whole networks side by side",
    "probe": "a linear probe on the target",
    "plain": "the modules without a composition",
}
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Accuracy of one answer, 0..1."""

    old: float | None
    """Accuracy on old images; None if there are none."""
    new: float | None
    """Accuracy on new images; None if there are none."""
    average: float
    """Mean of both."""
    low: float
    """Lower end of the interval of `average`."""
    high: float
    """Upper end."""
    numbers: int
    """Numbers that are stored in addition to the target's."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Comparison of a module with its alternatives."""

    images: int
    """Number of images; all answers are measured on the same ones."""
    fitting: Fitting
    """`cross-fitted`: each image is judged by a head that was fitted on the other folds. `held out`: the images are a
    part that no head was fitted on."""
    figures: dict[str, Figure]
    """`module` and every alternative that was measured."""
    best: Alternative
    """The most accurate alternative."""
    difference: float
    """Accuracy of the module minus that of the best alternative, -1..1."""
    low: float
    """Lower end of the interval of `difference`."""
    high: float
    """Upper end."""
    outcome: Outcome
    """`better` or `worse`: the interval of `difference` does not contain 0; `equal`: it does."""
    text: str
    """The verdict in words, one sentence."""

    def __post_init__(self) -> None:
        missing = {"module", self.best} - set(self.figures)
        if missing or not set(self.figures) <= {"module", *NAMES}:
            expected = f"module and {self.best}, and others only of {[*NAMES]}"
            raise ValueError(f"figures: expected {expected}, got {[*self.figures]}")


@dataclass(frozen=True)
class Answers:
    """Which images an answer gets right, old and new ones apart."""

    old: Sequence[bool]
    new: Sequence[bool]
    numbers: int
    """Numbers that are stored in addition to the target's."""

    @property
    def sides(self) -> list[Sequence[bool]]:
        """The sides that have images."""
        return [side for side in (self.old, self.new) if len(side)]

    def figure(self) -> Figure:
        """Accuracy and interval."""
        shares = [_share(side) for side in (self.old, self.new)]
        present = [share for share in shares if share is not None]
        average = sum(present) / len(present)
        intervals = [wilson(sum(side), len(side)) for side in self.sides]
        low, high = _mean(present, intervals)
        return Figure(
            old=shares[0], new=shares[1], average=average, low=max(0.0, low), high=min(1.0, high), numbers=self.numbers
        )


def judge(module: Answers, alternatives: dict[Alternative, Answers], fitting: Fitting) -> Verdict:
    """Compare a module with its alternatives.

    Args:
        module: The module's answers.
        alternatives: At least one, on the same images in the same order. Of equally accurate ones the first is best.
        fitting: How the images were kept apart from fitting.
    """
    figures: dict[str, Figure] = {"module": module.figure()}
    figures |= {name: alternative.figure() for name, alternative in alternatives.items()}
    best = max(alternatives, key=lambda name: figures[name].average)
    low, high = difference_interval(module, alternatives[best])
    difference = figures["module"].average - figures[best].average
    outcome: Outcome = "better" if low > 0 else "worse" if high < 0 else "equal"
    return Verdict(
        images=len(module.old) + len(module.new),
        fitting=fitting,
        figures=figures,
        best=best,
        difference=difference,
        low=low,
        high=high,
        outcome=outcome,
        text=_text(outcome, best, (difference, low, high), figures),
    )


def doubted(verdict: Verdict, most: float, text: str) -> Verdict:
    """The verdict with doubtful labels: wrong ones make accuracies too low, so every interval reaches further up.

    Args:
        verdict: The verdict by the labels as they are.
        most: Largest share of labels that may be wrong, 0..1.
        text: The warning, a clause.
    """
    figures = {name: replace(one, high=min(1.0, one.high + most)) for name, one in verdict.figures.items()}
    return replace(verdict, figures=figures, text=f"{verdict.text}; {text}")


def _text(outcome: Outcome, best: Alternative, found: tuple[float, float, float], figures: dict[str, Figure]) -> str:
    difference, low, high = (100 * value for value in found)
    interval = f"(90 %: {low:.1f} to {high:.1f})"
    if outcome == "equal":
        other, module = figures[best].numbers, figures["module"].numbers
        size = "smaller" if other < module else "larger" if other > module else "as large"
        return f"not distinguishable from {NAMES[best]}, which is {size}: {difference:+.1f} points {interval}"
    side = "above" if outcome == "better" else "below"
    return f"{abs(difference):.1f} points {side} the best alternative, {NAMES[best]} {interval}"


def difference_interval(one: Answers, other: Answers) -> Interval:
    """Interval of the difference of two accuracies on the same images, -1..1."""
    found = [_paired(*pair) for pair in zip(one.sides, other.sides, strict=True)]
    return _mean([difference for difference, _ in found], [interval for _, interval in found])


def wilson(right: int, images: int) -> Interval:
    """Wilson's interval of a share, 0..1."""
    p, n = right / images, images
    middle, spread = p + Z**2 / (2 * n), Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = ((middle + sign * spread) / (1 + Z**2 / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def _share(side: Sequence[bool]) -> float | None:
    return sum(side) / len(side) if len(side) else None


def _mean(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Interval of the mean of independent estimates."""
    count, middle = len(values), sum(values) / len(values)
    below = sqrt(sum((value - low) ** 2 for value, (low, _) in zip(values, intervals, strict=True))) / count
    above = sqrt(sum((high - value) ** 2 for value, (_, high) in zip(values, intervals, strict=True))) / count
    return middle - below, middle + above


def _paired(one: Sequence[bool], other: Sequence[bool]) -> tuple[float, Interval]:
    """Difference of two shares on the same images, and its interval."""
    n, first, second = len(one), sum(one), sum(other)
    both = sum(a and b for a, b in zip(one, other, strict=True))
    p, q = first / n, second / n
    (low_p, high_p), (low_q, high_q) = wilson(first, n), wilson(second, n)
    spread = first * (n - first) * second * (n - second)
    phi = (both * n - first * second) / sqrt(spread) if spread else 0.0
    below = (p - low_p) ** 2 - 2 * phi * (p - low_p) * (high_q - q) + (high_q - q) ** 2
    above = (high_p - p) ** 2 - 2 * phi * (high_p - p) * (q - low_q) + (q - low_q) ** 2
    return p - q, (p - q - sqrt(max(0.0, below)), p - q + sqrt(max(0.0, above)))


def rounded(verdict: Verdict) -> Verdict:
    """The same verdict with six decimals, as a manifest holds it."""
    figures = {
        name: replace(
            found,
            old=None if found.old is None else round(found.old, 6),
            new=None if found.new is None else round(found.new, 6),
            average=round(found.average, 6),
            low=round(found.low, 6),
            high=round(found.high, 6),
        )
        for name, found in verdict.figures.items()
    }
    return replace(
        verdict,
        figures=figures,
        difference=round(verdict.difference, 6),
        low=round(verdict.low, 6),
        high=round(verdict.high, 6),
    )
