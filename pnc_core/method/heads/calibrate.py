"""Fit every kind of head on cached logits and taps, choose one, and compare the module with its alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from torch import Tensor

from pnc_core.config import CloneConfig
from pnc_core.errors import PositionError
from pnc_core.graph.cost import Cost
from pnc_core.images import ImageSet
from pnc_core.method.budget import head_kinds, limits
from pnc_core.method.heads.alternatives import cross_fitted_probe, held_out_probe, verdict_of
from pnc_core.method.heads.choose import FittedHead, HeadChoice, choose_head
from pnc_core.method.heads.fit import CHOICE_ROWS, accuracy, balanced_losses, fit_head, head_logits
from pnc_core.method.heads.folds import Candidate, cross_fit, folds_of
from pnc_core.method.heads.inputs import Outputs, head_inputs, last_taps, outputs_of_all, shown_by, tap_widths
from pnc_core.method.heads.locality_gate import with_locality_gate
from pnc_core.method.heads.without_old_images import without_old_images
from pnc_core.method.insert import Insertion, module_macs
from pnc_core.method.job import Job, traced_step
from pnc_core.module.head import LAST, Head, TapWindow, head_cost, seen_width
from pnc_core.module.verdict import Fitting, Verdict

FAST_VIEWS, ECONOMICAL_VIEWS = 2, 1
"""Largest number of augmented views for the head of the preset `fast`, and in an economical job."""

CROSS_FITTED = 100
"""With fewer images of a class, on average, heads are cross-fitted. Own choice: from here on a held-out quarter tells
accuracies apart to about 2 points, and five fits of every head would take longer than everything else."""
CROSS_STRENGTHS = (1e-1, 1.0, 10.0)
"""Candidate weight decays for cross-fitted heads: few images need a stronger prior."""
AFFINE_ONLY, VIEWED = 3, 25
"""With fewer images of a class, on average, than the first number only the affine head is fitted: with one or two, the
folds cannot tell heads apart. From the second number on, one view of each image replaces `FAST_VIEWS`."""


BEHIND = 0.01
"""A cut tail may be less accurate than the whole source by this much."""


@dataclass(frozen=True)
class Calibrated:
    """A module's head, and the worth of the module."""

    fitted: FittedHead
    judged: ImageSet
    """Images that judged the head."""
    logits: Tensor | None
    """Logits (N, N_old + K) of these images, by heads that have not seen them; None without labels or old images."""
    verdict: Verdict | None
    """Comparison with the alternatives on these images; None without labels or old images."""
    alone: Tensor | None = None
    """The target's own predictions for these images, int64 (N,)."""


def grids_of(job: Job, insertion: Insertion) -> list[int]:
    """Numbers of cells per side to which the heads of a module pool its taps."""
    return [1] if _is_cross_fitted(job, insertion) else most_grids(job.config)


def most_grids(config: CloneConfig) -> list[int]:
    """`grids_of` for a module whose heads are not cross-fitted, which needs the most memory."""
    return [1] if config.preset == "fast" or not config.old_images else sorted({1, config.tap_grid})


def read(job: Job, insertions: Sequence[Insertion]) -> list[Outputs]:
    """Run both networks and the modules once over all images of the job, for `calibrate` and `falls_behind`."""
    return outputs_of_all(job, [(insertion, grids_of(job, insertion)) for insertion in insertions], job.every)


@traced_step("heads")
def calibrate(job: Job, insertion: Insertion, outputs: Outputs, most_views: int | None = None) -> Calibrated:
    """Fit every allowed head on cached logits and taps, and choose one by its loss on images that it has not seen.

    These are the held-out images. They are all images, by cross-fitting, if there are few and the insertion has not
    learned from them: behind a learned tail, images that it has learned from look easier than others.

    Args:
        job: Images and frozen networks.
        insertion: The module.
        outputs: Outputs for all images, from `read`.
        most_views: Largest number of augmented views per image; 0: neither network runs again. None: the job's number.
    """
    if _is_cross_fitted(job, insertion):
        return _cross_fitted(job, insertion, outputs)
    return _held_out(job, insertion, outputs, _views(job) if most_views is None else most_views)


def _views(job: Job) -> int:
    fast_views = ECONOMICAL_VIEWS if job.is_economical else FAST_VIEWS
    return min(job.config.views, fast_views) if job.config.preset == "fast" else job.config.views


def _is_cross_fitted(job: Job, insertion: Insertion) -> bool:
    return not (insertion.learned or job.config.locality == "strict" or _per_class(job) >= CROSS_FITTED)


def _per_class(job: Job) -> float:
    return len(job.every) / (job.old_classes + len(job.cloned))


def _held_out(job: Job, insertion: Insertion, outputs: Outputs, views: int) -> Calibrated:
    config, grids = job.config, grids_of(job, insertion)
    parts = zip((job.train, job.validation), _parts(job, outputs), strict=True)
    train, validation = (head_inputs(job, insertion, images, grids, views, part.rows) for images, part in parts)
    if not config.old_images:
        return Calibrated(without_old_images(job, train[0], validation[0]), job.validation, None, None)
    rows = list(zip(grids, train, validation, strict=True))
    # The affine head reads no taps, so it is the same on every grid.
    locality_gates = {grid: seen_width(job.target, grid) if config.locality == "strict" else 0 for grid in grids}
    choices = [
        HeadChoice(kind, *row, locality_gate=locality_gates[row[0]])
        for kind in head_kinds(job)
        for row in (rows[:1] if kind == "affine" else rows)
    ]
    if "joint" in head_kinds(job):
        shortened = partial(last_taps, job, insertion)
        choices += [
            HeadChoice("joint", g, shortened(t, g, tap_window), shortened(v, g, tap_window), tap_window=tap_window)
            for g, t, v in rows
            for tap_window in _tap_windows(job, insertion, g)
        ]
    folds = folds_of(job.validation, job.generator("folds"))
    fitted = choose_head(_fitting(job, insertion, choices), folds)
    if config.locality == "strict":
        kept = next(choice for choice in choices if choice.grid == fitted.grid)
        fitted = with_locality_gate(fitted, kept.train, kept.validation, kept.locality_gate)
        fitted = replace(fitted, logits=head_logits(fitted.judged, kept.validation.first(len(folds))))
    if not config.labels:
        return Calibrated(fitted, job.validation, None, None)
    probe = held_out_probe(train[0], validation[0], tap_widths(job, insertion, 1)[0], folds)
    return _compared(job, insertion, outputs, fitted, probe, "held out")


def _parts(job: Job, outputs: Outputs) -> tuple[Outputs, Outputs]:
    """Outputs for the training images, and for the held-out ones."""
    held = job.held
    return (outputs, outputs) if held is None else (outputs.take(~held), outputs.take(held))


def _cross_fitted(job: Job, insertion: Insertion, outputs: Outputs) -> Calibrated:
    """Choose among heads on one cell of every tap: few images do not pay for more."""
    images, per_class = job.every, _per_class(job)
    views = min(job.config.views, FAST_VIEWS if per_class < VIEWED else 1)
    kinds = head_kinds(job) if per_class >= AFFINE_ONLY else head_kinds(job)[:1]
    rows = head_inputs(job, insertion, images, [1], views, outputs.rows)[0]
    shown, folds = shown_by(job, len(images), views), folds_of(images, job.generator("folds"))
    last = last_taps(job, insertion, rows, 1, LAST)
    candidates = [
        Candidate(kind, strength, 1, inputs, tap_window, insertion.odds)
        for kind in kinds
        for strength in (CROSS_STRENGTHS if kind != "affine" else CROSS_STRENGTHS[:1])
        for inputs, tap_window in (((rows, None), (last, LAST)) if kind == "joint" else ((rows, None),))
    ]
    fitted = cross_fit(candidates, shown, folds, simplest="affine" in kinds)
    probe = cross_fitted_probe(rows, tap_widths(job, insertion, 1)[0], shown, folds)
    return _compared(job, insertion, outputs, fitted, probe, "cross-fitted")


def _compared(
    job: Job, insertion: Insertion, outputs: Outputs, fitted: FittedHead, probe: FittedHead, fitting: Fitting
) -> Calibrated:
    judged = job.every if fitting == "cross-fitted" else job.validation
    seen = outputs if fitting == "cross-fitted" else _parts(job, outputs)[1]
    assert fitted.logits is not None
    assert probe.logits is not None
    module = fitted.logits, insertion.parameter_count + _numbers(fitted)
    verdict, alone = verdict_of(job, judged.labels, seen, module, (probe.logits, _numbers(probe)), fitting)
    return Calibrated(fitted, judged, fitted.logits, verdict, alone)


def _numbers(fitted: FittedHead) -> int:
    return sum(tensor.numel() for tensor in fitted.head.state_dict().values())


def falls_behind(job: Job, ours: Tensor | None, whole: tuple[Insertion, Outputs]) -> bool:
    """Whether a cut tail is more than `BEHIND` less accurate than the whole source, on the same held-out images.

    Args:
        job: Images and frozen networks.
        ours: Logits of the cut tail's module for the held-out images, by a head that has not seen them; None if there
            are none, and then nothing is compared.
        whole: The whole source and its outputs for all images.
    """
    if ours is None:
        return False
    logits, labels = _without_views(job, *whole), job.validation.labels
    found, best = (accuracy(answers, labels, job.old_classes).average for answers in (ours, logits))
    return found < best - BEHIND


def _without_views(job: Job, insertion: Insertion, outputs: Outputs) -> Tensor:
    """Logits of a module for the held-out images, by the better of an affine head and one on the last taps.

    The heads are fitted without views, so neither network runs again.
    """
    train, held = (part.rows[1] for part in _parts(job, outputs))
    last, last_held = (last_taps(job, insertion, rows, 1, LAST) for rows in (train, held))
    choices = [
        HeadChoice("affine", 1, train, held),
        HeadChoice("joint", 1, last, last_held, tap_window=LAST),
    ]
    found = choose_head(choices, folds_of(job.validation, job.generator("folds")), refit=False)
    assert found.logits is not None
    return found.logits


def _room(job: Job, insertion: Insertion) -> tuple[Cost, Cost]:
    """Cost of the module without its head, and the largest allowed cost of the whole module."""
    return Cost(insertion.parameter_count, module_macs(job, insertion)), limits(job)


def _tap_windows(job: Job, insertion: Insertion, grid: int) -> list[TapWindow]:
    """Tap windows to try besides all taps.

    The last tap of target and module is always tried. If all taps exceed the bounds, the longest window that fits is
    tried too: several last taps of the target and the last tap of the module. The target's taps come first, because
    the earlier taps of a strongly pruned module hold little information.
    """
    spent, most = _room(job, insertion)
    seen, made = tap_widths(job, insertion, grid)

    def fits(*widths: int) -> bool:
        return (spent + head_cost("joint", sum(widths), job.old_classes, len(job.cloned))).within(most)

    if fits(*seen, *made):
        return [LAST]
    longer = (count for count in range(len(seen), 1, -1) if fits(*seen[-count:], *made[-1:]))
    return [LAST, *(TapWindow(count, 1) for count in islice(longer, 1))]


def _fitting(job: Job, insertion: Insertion, choices: list[HeadChoice]) -> list[HeadChoice]:
    """The heads with which the whole module keeps its bounds.

    Raises:
        PositionError: no head fits.
    """
    spent, most = _room(job, insertion)
    fitting = [choice for choice in choices if (spent + choice.cost).within(most)]
    if not fitting:
        raise PositionError(
            f"position {insertion.position}: expected a module of at most {most.parameter_count:,} numbers with its "
            f"head, got {spent.parameter_count:,} without; raise max_size, or lower keep"
        )
    return fitting


def plain_head(job: Job, insertion: Insertion, grid: int) -> tuple[Head, float]:
    """Fit one head without a choice, for refining.

    Returns:
        The head, and its balanced cross-entropy on the held-out images.
    """
    kind = "joint" if job.config.head in ("auto", "joint") and job.config.locality == "soft" else "router"
    train, held = (head_inputs(job, insertion, i, [grid], 1)[0] for i in (job.train, job.validation))
    head = fit_head(kind, train.some(CHOICE_ROWS))
    return head, float(balanced_losses(head, held).mean())
