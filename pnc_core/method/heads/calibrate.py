"""Fit every kind of head on cached logits and taps, and choose one."""

from functools import partial
from itertools import islice

from pnc_core.errors import PositionError
from pnc_core.graph.cost import Cost
from pnc_core.method.budget import head_kinds, limits
from pnc_core.method.heads.choose import FittedHead, HeadChoice, choose_head
from pnc_core.method.heads.fit import CHOICE_ROWS, balanced_losses, fit_head
from pnc_core.method.heads.locality_gate import with_locality_gate
from pnc_core.method.heads.without_old_images import without_old_images
from pnc_core.method.insert import Insertion, head_inputs, last_taps, module_macs, tap_widths
from pnc_core.method.job import Job, traced_step
from pnc_core.module.head import LAST, Head, TapWindow, head_cost, seen_width

FAST_VIEWS = 2
"""Largest number of augmented views for the head of the preset `fast`."""


@traced_step("heads")
def calibrate(job: Job, insertion: Insertion) -> FittedHead:
    """Fit every allowed head on cached logits and taps, and choose one by its loss on the held-out images."""
    config = job.config
    fast = config.preset == "fast"
    grids = [1] if fast or not config.old_images else sorted({1, config.tap_grid})
    views = min(config.views, FAST_VIEWS) if fast else config.views
    train = head_inputs(job, insertion, job.train, grids, views)
    validation = head_inputs(job, insertion, job.validation, grids, views)
    if not config.old_images:
        return without_old_images(job, train[0], validation[0])
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
    fitted = choose_head(_fitting(job, insertion, choices))
    if config.locality == "soft":
        return fitted
    kept = next(choice for choice in choices if choice.grid == fitted.grid)
    return with_locality_gate(fitted, kept.train, kept.validation, kept.locality_gate)


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
