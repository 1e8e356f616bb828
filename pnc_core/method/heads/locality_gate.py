"""Put a locality gate in front of a chosen head, and set thresholds.

A threshold lies midway between the scores of two images, never on one.
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

GATE_LOSS = 0.02
"""Share of held-out new images that a locality gate may turn away."""
CLEAR = 1e-4
"""Log-odds that two images must differ by for a bar to be put between them, or that share of the largest log-odds where
these are above one: rounding stays far below it on every processor."""


@full_precision()
def shut(fitted: FittedHead, train: HeadInputs, validation: HeadInputs, seen: int) -> FittedHead:
    """A chosen head behind a locality gate that reads the first `seen` features, the target's own.

    It opens for all but 2 % of the held-out new images, so that accuracy is hardly touched and
    what stays shut costs nothing.

    Args:
        fitted: `affine` or `router`.
        train: Rows that the locality gate is fitted on.
        validation: Rows that say where it opens, and how good what has not learned from them is.
        seen: How many features are the target's.
    """
    locality_gate = _fit_locality_gate(train, validation, seen)
    judged, head = (_behind(locality_gate, part, train) for part in (fitted.judged, fitted.head))
    score = accuracy(head_logits(judged, validation), validation.labels, train.old.shape[1])
    return replace(fitted, head=head, judged=judged, score=score)


def _fit_locality_gate(train: HeadInputs, validation: HeadInputs, seen: int) -> tuple[Tensor, Tensor]:
    """Weight (seen,) and bias of a logistic regression of old against new on the first `seen` features."""
    old_classes = train.old.shape[1]
    sides = [_sides(rows, old_classes, seen) for rows in (train, validation)]
    fitted = min(
        ((_fit_on_some(sides[0], s), s) for s in STRENGTHS),
        key=lambda pair: float(balanced_losses(pair[0], sides[1]).mean()),
    )[0]
    held = sides[1].features[sides[1].labels == 1]
    found = F.linear(held, fitted.weight[0:1])[:, 0]
    return fitted.weight[0], -bar_below(found[:CHOICE_ROWS], GATE_LOSS)


def _behind(locality_gate: tuple[Tensor, Tensor], head: Head, rows: HeadInputs) -> Head:
    """The same head, run only where the locality gate opens; `rows` have the widths of what it reads."""
    weight, bias = locality_gate
    strict = Head(head.kind, rows.features.shape[1], rows.old.shape[1], rows.own.shape[1], locality_gate=len(weight))
    strict.load_state_dict(head.state_dict(), strict=False)
    strict.shutter_weight.data.copy_(weight)
    strict.shutter_bias.data.copy_(bias)
    return strict.requires_grad_(False)


def _sides(rows: HeadInputs, old_classes: int, seen: int) -> HeadInputs:
    """Old against new, told apart by the target's taps alone."""
    nothing = torch.zeros(len(rows.labels), 1)
    return HeadInputs(nothing, nothing, rows.features[:, :seen], (rows.labels >= old_classes).long())


def _fit_on_some(rows: HeadInputs, strength: float) -> Head:
    return fit_head("router", rows.some(CHOICE_ROWS), strength)


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
