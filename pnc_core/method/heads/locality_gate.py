"""Put a locality gate in front of a chosen head, and set thresholds.

The gate is a logistic regression of old against new images on the target's own features f:

    the module runs if w . f + b > 0

The threshold b lets 98 % of the held-out new images pass.

Every threshold lies midway between the scores of two images. A score equal to the threshold, up to rounding, would pass
on one processor and fail on another, because processors add in different orders. Own choice.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.devices import full_precision
from pnc_core.method.heads.choose import FittedHead
from pnc_core.method.heads.fit import (
    CHOICE_ROWS,
    STRENGTHS,
    HeadInputs,
    accuracy,
    balanced_losses,
    fit_head,
    head_logits,
)
from pnc_core.module.head import Head

MAX_REJECTED_SHARE = 0.02
"""Largest share of held-out new images that a locality gate may reject."""
MIN_GAP = 1e-4
"""Smallest gap between two scores that a threshold may separate, relative to max(1, largest absolute score).

Rounding errors are far smaller on every processor.
"""


@full_precision()
def with_locality_gate(fitted: FittedHead, train: HeadInputs, validation: HeadInputs, seen: int) -> FittedHead:
    """Put a locality gate in front of a chosen head.

    The gate rejects at most 2 % of the held-out new images, so accuracy changes little. For a rejected image the module
    does not run.

    Args:
        fitted: `affine` or `router`.
        train: Rows that the locality gate is fitted on.
        validation: Held-out rows. They set the threshold and give the score.
        seen: Number of the target's own features; they come first.
    """
    locality_gate = _fit_locality_gate(train, validation, seen)
    judged, head = (_behind(locality_gate, part, train) for part in (fitted.judged, fitted.head))
    score = accuracy(head_logits(judged, validation), validation.labels, train.old.shape[1])
    return replace(fitted, head=head, judged=judged, score=score)


def _fit_locality_gate(train: HeadInputs, validation: HeadInputs, seen: int) -> tuple[Tensor, Tensor]:
    """Weight (seen,) and bias of the logistic regression of old against new on the first `seen` features."""
    old_classes = train.old.shape[1]
    sides = [_sides(rows, old_classes, seen) for rows in (train, validation)]
    fitted = min(
        ((_fit_on_some(sides[0], s), s) for s in STRENGTHS),
        key=lambda pair: float(balanced_losses(pair[0], sides[1]).mean()),
    )[0]
    held = sides[1].features[sides[1].labels == 1]
    found = F.linear(held, fitted.weight[0:1])[:, 0]
    return fitted.weight[0], -threshold_below(found[:CHOICE_ROWS], MAX_REJECTED_SHARE)


def _behind(locality_gate: tuple[Tensor, Tensor], head: Head, rows: HeadInputs) -> Head:
    """Copy a head and give the copy a locality gate; `rows` gives the widths of the head's inputs."""
    weight, bias = locality_gate
    strict = Head(head.kind, rows.features.shape[1], rows.old.shape[1], rows.own.shape[1], locality_gate=len(weight))
    strict.load_state_dict(head.state_dict(), strict=False)
    strict.shutter_weight.data.copy_(weight)
    strict.shutter_bias.data.copy_(bias)
    return strict.requires_grad_(False)


def _sides(rows: HeadInputs, old_classes: int, seen: int) -> HeadInputs:
    """Rows of a two-class problem: label 0 for old, 1 for new; only the target's own features."""
    nothing = torch.zeros(len(rows.labels), 1)
    return HeadInputs(nothing, nothing, rows.features[:, :seen], (rows.labels >= old_classes).long())


def _fit_on_some(rows: HeadInputs, strength: float) -> Head:
    return fit_head("router", rows.some(CHOICE_ROWS), strength)


def threshold_below(values: Tensor, share: float) -> Tensor:
    """A threshold that about `share` of the values do not exceed: the quantile, moved midway between two values.

    Args:
        values: Scores (N,), one per image. Images with a score above the threshold pass.
        share: Share of images to reject, 0..1. The number of rejected images is ceil(share (N - 1)), so at least one
            image passes.

    Returns:
        A scalar. Scores that differ by no more than `MIN_GAP` count as equal, and their images pass together.
    """
    ordered = values.sort().values
    clear = MIN_GAP * float(ordered.abs().max().clamp_min(1))
    wide = torch.nonzero(ordered.diff()[: math.ceil(share * (len(ordered) - 1))] > clear).flatten()
    return (ordered[wide[-1]] + ordered[wide[-1] + 1]) / 2 if len(wide) else ordered[0] - clear
