"""How large a module must be: a cut tail where images show that it is good enough, else the whole source.

With few images a cut tail is learned badly, and a held-out quarter cannot show how badly. Both networks side by side
need no learning at all. A module of the whole source contains them: behind the image itself its adapter is exact, and
its head starts at both networks' softmax.

Own choice (decision 126).
"""

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from pnc_core.config import MIN_IMAGES, CloneConfig
from pnc_core.method.heads.calibrate import Calibrated
from pnc_core.method.job import Job
from pnc_core.module.verdict import NAMES, Verdict

FEW_IMAGES = 10
"""With fewer different images of a class, on average, no cut tail is tried. A held-out quarter of two images a class
would tell accuracies apart to 10 points at best."""
WORST, WORST_LOW = -0.005, -0.02
"""A cut tail is good enough if its accuracy minus that of the best alternative, and the lower end of the interval of
this difference, are at least these."""
WHOLE_SIZE = 2.0
"""Bound on a module of the whole source, as a share of the source: its head adds to the source's numbers."""
MAX_CLASSES = 50
"""A confusion matrix of more classes is not readable."""
WHOLE_INSTEAD = "too few images show that the cut tail is good enough: the whole source is tried"
NO_SPLIT = (
    f"images: expected at least {MIN_IMAGES} different ones of every class, because target and source take different "
    "images, got fewer; add some"
)


def needs_whole(job: Job) -> bool:
    """Whether there are too few images to learn a cut tail and to judge it."""
    return not job.is_split or len(job.every) < FEW_IMAGES * len(job.every.classes)


def is_enough(verdict: Verdict | None) -> bool:
    """Whether the images show that a cut tail is as good as the best alternative; True if nothing was compared."""
    return verdict is None or (verdict.difference >= WORST and verdict.low >= WORST_LOW)


def grown(job: Job) -> Job:
    """The same job with room for the whole source."""
    return replace(job, config=replace(job.config, max_size=WHOLE_SIZE))


def is_refused(verdict: Verdict, config: CloneConfig) -> bool:
    """Whether a module is worse than an answer that needs none. A module of strict locality keeps old answers, which no
    alternative does, and is never refused.
    """
    return verdict.outcome == "worse" and not config.keep_anyway and config.locality == "soft"


def refusal(verdict: Verdict, config: CloneConfig) -> str:
    """The reason, and advice for the next job."""
    figures = verdict.figures
    bounds = [name for name in ("position", "max_size", "max_macs") if getattr(config, name) is not None]
    bounds += ["keep"] if config.keep != CloneConfig.keep else []
    grow = f"leave out {' and '.join(bounds)}, so that the module may be larger, or " if bounds else ""
    return (
        f"module: expected one at least as accurate as an answer that needs no module, got "
        f"{100 * figures['module'].average:.1f} % on {verdict.images:,} images, where {NAMES[verdict.best]} has "
        f"{100 * figures[verdict.best].average:.1f} %: {verdict.text}; {grow}add images, use {NAMES[verdict.best]}, or "
        "set keep_anyway to make the module as it is"
    )


def judged_facts(job: Job, calibrated: Calibrated) -> dict[str, Any]:
    """The verdict and the confusion matrices as JSON; empty if nothing was compared.

    Returns:
        `verdict`; and `confusion` with `classes` and counts of images by true class (rows) and predicted class
        (columns): `before` by the target alone, `after` with the module, by heads that have not seen the image.
    """
    verdict, logits = calibrated.verdict, calibrated.logits
    if verdict is None or logits is None:
        return {}
    classes = (*job.target.spec.classes, *job.config.classes)
    found: dict[str, Any] = {"verdict": asdict(verdict)}
    if len(classes) <= MAX_CLASSES and calibrated.alone is not None:
        labels = calibrated.judged.labels
        found["confusion"] = {
            "classes": list(classes),
            "before": _counts(labels, calibrated.alone, len(classes)),
            "after": _counts(labels, logits.argmax(1), len(classes)),
        }
    return found


def _counts(labels: Tensor, predicted: Tensor, classes: int) -> list[list[int]]:
    counted: list[list[int]] = (
        torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, -1).tolist()
    )
    return counted
