"""What the demo promises: what breaks a promise, and what does not."""

from typing import Any

import pytest
import torch

from app import demo
from app.promises import CEILING, LEAST_AVERAGE, LEAST_GAIN, LEAST_LOCALITY, ROUNDING, broken

KEPT: dict[str, Any] = {
    "composed_avg": LEAST_AVERAGE + 0.1,
    "ensemble_avg": LEAST_AVERAGE,
    "locality": LEAST_LOCALITY + 0.1,
    "restored": True,
    "local_logit_difference": 1e-6,
    "thin_is_full": True,
    "local_target_untouched": True,
    "source_bytes": 1000,
    "full_bytes": 590,
    "thin_bytes": 240,
}


def test_a_run_that_keeps_every_promise_has_none_to_name() -> None:
    assert broken(KEPT) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"composed_avg": LEAST_AVERAGE - 0.01, "ensemble_avg": 0.5}, "composed accuracy is at least"),
        ({"composed_avg": LEAST_AVERAGE + LEAST_GAIN / 2}, "above the better direct ensemble"),
        ({"composed_avg": CEILING - 0.001, "ensemble_avg": CEILING - 0.001}, "above the better direct ensemble"),
        ({"composed_avg": CEILING, "ensemble_avg": CEILING + 2 * LEAST_GAIN}, "above the better direct ensemble"),
        ({"locality": LEAST_LOCALITY - 0.01}, "old images"),
        ({"restored": False}, "bit for bit"),
        ({"local_logit_difference": 2 * ROUNDING}, "without a server the bundle"),
        ({"local_logit_difference": float("nan")}, "without a server the bundle"),
        ({"thin_is_full": False}, "thin and full"),
        ({"local_target_untouched": False}, "leaves the target alone"),
        ({"full_bytes": 600}, "full bundle is smaller"),
        ({"thin_bytes": 300}, "thin bundle is smaller"),
    ],
)
def test_each_promise_is_named_where_it_is_broken(changes: dict[str, Any], named: str) -> None:
    (promise,) = broken(KEPT | changes)
    assert named in promise


@pytest.mark.parametrize("composed", [0.9876, 0.9876 - LEAST_GAIN / 2])
def test_a_tie_at_the_ceiling_is_no_failure(composed: float) -> None:
    assert broken(KEPT | {"composed_avg": composed, "ensemble_avg": 0.9876}) == []


def test_a_blot_hides_a_square_of_every_image_and_nothing_else() -> None:
    images = demo.handwritten().take(torch.arange(300))
    images.images.clamp_(min=1)
    spoilt = demo.blotted(images, 3, torch.Generator().manual_seed(0))
    hidden = spoilt.images[:, 0] == 0
    assert torch.equal(hidden.sum((1, 2)), torch.full((300,), 9))
    assert torch.equal(hidden.any(1).sum(1), torch.full((300,), 3))
    assert torch.equal(spoilt.images[:, 0][~hidden], images.images[:, 0][~hidden])
    assert len({tuple(torch.nonzero(square)[0].tolist()) for square in hidden}) == 36  # every place it has room in
    assert torch.equal(spoilt.labels, images.labels)
