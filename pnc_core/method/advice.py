"""Advice before a job: the accuracy to expect, alternatives, the time, and the worth of more images. Seconds of work.

Nothing is trained or cut. Both whole networks run once over a sample of the images. Heads are cross-fitted on their
logits and last taps, as for a module of the whole source. A cut tail that has learned from many images comes close to
it, and can be better with many classes; one that has learned from few images is worse.

The learning curve has three points: a quarter of the sample, half of it, and all of it, each contained in the next. The
accuracy with more images is that of the curve a - b / sqrt(n) through these points. Own choice.
"""

import time
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from pnc_core.errors import DataError
from pnc_core.images import ImageSet
from pnc_core.method.heads.alternatives import cross_fitted_probe, verdict_of
from pnc_core.method.heads.calibrate import AFFINE_ONLY
from pnc_core.method.heads.choose import FittedHead
from pnc_core.method.heads.fit import HeadInputs
from pnc_core.method.heads.folds import Candidate, cross_fit, folds_of
from pnc_core.method.heads.inputs import last_taps, outputs_of_all, tap_widths
from pnc_core.method.insert import Insertion, whole_source
from pnc_core.method.job import Job
from pnc_core.method.search import candidates, probe_of
from pnc_core.module.head import LAST
from pnc_core.module.verdict import Answers, Figure, Verdict

MOST_IMAGES = 600
"""Largest number of images that the networks run on, unless the classes need two images each."""
SHARES = (0.25, 0.5, 1.0)
"""Shares of the sample on the learning curve."""
MORE = 4
"""Multiple of the job's images for which an accuracy is forecast."""
STRENGTH = 0.1
"""Weight decay of the heads: the best one for 3 to 25 images of a class on the development splits."""
BACKWARD = 3
"""A training step costs as much as this number of passes."""


@dataclass(frozen=True)
class Point:
    """Accuracy with a number of images."""

    per_class: float
    """Mean number of images of a class."""
    figure: Figure


@dataclass(frozen=True)
class Advice:
    """What to expect of a job."""

    verdict: Verdict
    """Comparison of the expected module with its alternatives, on the sample."""
    curve: tuple[Point, ...]
    """Three points; the last one is the whole sample."""
    more: tuple[float, float]
    """Mean number of images of a class, and the forecast accuracy with them, 0..1."""
    seconds: float
    """Expected seconds of the job on this machine, to a factor of about two."""


def advise(job: Job) -> Advice:
    """Advice for a prepared job.

    Raises:
        DataError: the job has no labels or no images of old classes, or the two networks take different images, so that
            nothing can be foretold without cloning.
    """
    whole = whole_source(job)
    if whole is None or not (job.config.labels and job.config.old_images):
        raise DataError(
            "advice: expected labelled images of old and cloned classes, and two networks that take the same images, "
            "got a job without; start the job, its verdict tells the same"
        )
    sample = job.every
    if len(sample) > MOST_IMAGES:
        sample = sample.sample(MOST_IMAGES, job.generator("advice"))
    started = time.perf_counter()
    (outputs,) = outputs_of_all(job, [(whole, [1])], sample)
    rows = last_taps(job, whole, outputs.rows[1], 1, LAST)
    per_image = (time.perf_counter() - started) / len(sample)
    order = _nested(sample, job.generator("advice order"))
    parts = [order[: max(1, round(share * len(order)))].sort().values for share in SHARES]
    curve = []
    for part in parts[:-1]:
        _, logits = _head(job, sample.take(part), rows.take(part))
        curve.append(Point(len(part) / len(sample.classes), _figure(job, logits, sample.labels[part])))
    fitted, logits = _head(job, sample, rows)
    curve.append(Point(len(sample) / len(sample.classes), _figure(job, logits, sample.labels)))
    folds, shown = folds_of(sample, job.generator("folds")), torch.arange(len(sample))
    probe = cross_fitted_probe(rows, tap_widths(job, whole, 1)[0][-1:], shown, folds)
    assert probe.logits is not None
    module = logits, whole.parameter_count + _numbers(fitted)
    verdict, _ = verdict_of(job, sample.labels, outputs, module, (probe.logits, _numbers(probe)), "cross-fitted")
    every = len(job.every) / len(sample.classes)
    return Advice(
        verdict, tuple(curve), (MORE * every, _forecast(curve, MORE * every)), _seconds(job, whole, per_image)
    )


def _head(job: Job, images: ImageSet, rows: HeadInputs) -> tuple[FittedHead, Tensor]:
    """A head on some images, and logits (N, N_old + K) by heads that have not seen the image."""
    folds, shown = folds_of(images, job.generator("folds")), torch.arange(len(images))
    kinds = ("affine", "joint") if len(images) >= AFFINE_ONLY * len(images.classes) else ("affine",)
    candidates = [Candidate(kind, STRENGTH, 1, rows, LAST, odds=True) for kind in kinds]
    fitted = cross_fit(candidates, shown, folds, simplest=True)
    assert fitted.logits is not None
    return fitted, fitted.logits


def _nested(images: ImageSet, generator: torch.Generator) -> Tensor:
    """An order of the images in which every beginning has about the same share of each class."""
    places = torch.zeros(len(images))
    for label in range(len(images.classes)):
        members = torch.nonzero(images.labels == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        places[members] = (torch.arange(len(members)) + 0.5) / max(1, len(members))
    return places.argsort(stable=True)


def _figure(job: Job, logits: Tensor, labels: Tensor) -> Figure:
    right, is_new = logits.argmax(1) == labels, labels >= job.old_classes
    return Answers(right[~is_new].tolist(), right[is_new].tolist(), 0).figure()


def _numbers(fitted: FittedHead) -> int:
    return sum(tensor.numel() for tensor in fitted.head.state_dict().values())


def _forecast(curve: list[Point], per_class: float) -> float:
    """a - b / sqrt(n) at n = `per_class`, by least squares with b >= 0; between the last point and 1."""
    x = torch.tensor([-1 / sqrt(point.per_class) for point in curve], dtype=torch.float64)
    y = torch.tensor([point.figure.average for point in curve], dtype=torch.float64)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum().clamp_min(1e-12))
    ahead = float(y.mean()) + max(0.0, slope) * (-1 / sqrt(per_class) - float(x.mean()))
    return min(1.0, max(curve[-1].figure.average, ahead))


def _seconds(job: Job, whole: Insertion, per_image: float) -> float:
    """Passes of both networks, by the steps of the method, times the measured seconds of one pass."""
    config, count, probe = job.config, len(job.every), len(probe_of(job))
    pairs = len(candidates(job)) if config.position is None else 0
    passes = float(count * (2 + config.views) + probe * (2 + pairs))
    if config.preset == "joint":
        trained = count * config.epochs + probe * (config.shortlist * config.epochs / 2 if pairs else 0)
        passes += BACKWARD * (trained + count * config.refine)
    return passes * per_image
