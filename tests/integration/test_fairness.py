"""A client that constantly sends the largest requests does not block another client.

The long form, with figures: `python -m benchmarks.fairness --out FOLDER`.
"""

from pathlib import Path
from statistics import median

import pytest

from benchmarks.fairness import measure

MOST = 5.0
"""Largest ratio of the 99th percentile beside large requests to that alone."""


@pytest.mark.always
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "seconds"), [(3, 2.0), pytest.param(5, 3.0, marks=pytest.mark.slow)])
def test_the_p99_of_one_client_stays_near_its_own_beside_the_largest_requests(
    tmp_path: Path, count: int, seconds: float
) -> None:
    rounds = measure(tmp_path, count, seconds)
    assert sum(one.large_images_per_s for one in rounds) > 0, "the other client was not answered at all"
    # Other load may disturb either half of a round, so the median of the rounds counts.
    assert median(one.ratio for one in rounds) < MOST, rounds
