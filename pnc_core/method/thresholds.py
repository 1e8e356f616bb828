"""Thresholds that are read off a sample: between two images, never on one.

On an image, or within rounding of it, the processor would decide whether it passes: sums are added up in another
order on each. Own choice.
"""

import math

import torch
from torch import Tensor

CLEAR = 1e-4
"""Log-odds that two images must differ by for a bar to be put between them, or that share of the largest log-odds where
these are above one: rounding stays far below it on every processor."""


def bar_below(values: Tensor, share: float) -> Tensor:
    """A threshold that about `share` of the values do not pass, as far from its neighbours as it can be.

    It lies where `torch.quantile` does, but midway between two values.

    Args:
        values: One number an image, (N,), of which those above the bar pass.
        share: 0..1; the number that do not pass is rounded up to a whole image, and one always passes.

    Returns:
        A scalar. Values that differ by no more than `CLEAR` count as equal and pass together.
    """
    ordered = values.sort().values
    clear = CLEAR * float(ordered.abs().max().clamp_min(1))
    wide = torch.nonzero(ordered.diff()[: math.ceil(share * (len(ordered) - 1))] > clear).flatten()
    return (ordered[wide[-1]] + ordered[wide[-1] + 1]) / 2 if len(wide) else ordered[0] - clear
