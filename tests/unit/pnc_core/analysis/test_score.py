"""Wilson's interval, and accuracies that are near chance."""

import pytest

from pnc_core.analysis.score import Score


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (81, 263, 0.25527, 0.36624), (15, 148, 0.06240, 0.16054)],
)
def test_the_interval_is_that_of_the_literature(right: int, images: int, low: float, high: float) -> None:
    """81 of 263 and 15 of 148 are examples of Newcombe, 1998; 0 and 10 of 10 follow from z^2 / (n + z^2) = 0.27753."""
    assert Score(right, images).interval == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("right", "images", "classes", "times", "near"),
    [
        (100, 1000, 10, 2.0, True),
        (225, 1000, 10, 2.0, False),
        (0, 20, 10, 2.0, True),
        (0, 10, 10, 2.0, False),
        (10, 100, 10, 1.5, False),
        (50, 500, 10, 1.5, True),
        (10, 1000, 100, 2.0, True),
        (500, 1000, 2, 2.0, True),
        (650, 1000, 2, 2.0, False),
        (0, 1000, 2, 1.5, True),
    ],
)
def test_only_a_whole_interval_near_chance_counts(
    right: int, images: int, classes: int, times: float, near: bool
) -> None:
    assert Score(right, images).is_near_chance(classes, times) is near


def test_a_gain_needs_intervals_apart() -> None:
    assert Score(90, 100).is_above(Score(70, 100), 0.05)
    assert not Score(90, 100).is_above(Score(80, 100), 0.05)
    assert not Score(9300, 10000).is_above(Score(9000, 10000), 0.05)


def test_a_score_is_one_line() -> None:
    assert str(Score(2247, 10000)) == "22.5 % (21.7 % to 23.3 %) of 10,000 images"
