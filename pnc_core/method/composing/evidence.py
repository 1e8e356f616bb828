"""Judge a composition: its accuracy beside those of its alternatives, on images that its numbers have not seen.

Every image is judged by numbers that were fitted on the other folds. The alternatives are the same modules without a
composition, the target alone, a linear probe on the target's taps and, if the sources are given, all whole networks
side by side: each network's softmax over all its classes. The modules may have seen the images in their jobs; then all
answers with modules are too good alike.

References:
    `pnc_core.method.heads.folds` (cross-fitting), `pnc_core.module.verdict` (intervals).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.errors import WorseThanNone
from pnc_core.images import EVALUATION_BATCH, ImageSet, batches, preprocess
from pnc_core.method.balance import Rows
from pnc_core.method.composing.numbers import Join, Numbers
from pnc_core.method.heads.alternatives import cross_fitted_probe
from pnc_core.method.heads.fit import HeadInputs
from pnc_core.module.composed import Composed
from pnc_core.module.head import tap_width
from pnc_core.module.verdict import NAMES, Alternative, Answers, Verdict, difference_interval, judge, rounded

MOST_JUDGED = 4000
"""Largest number of images that judge; the interval is then at most 2.6 points wide. Cross-fitting takes five fits."""
Network = tuple[nn.Module, NetworkSpec]


@dataclass(frozen=True, eq=False)
class Judged:
    """Images that judge a composition."""

    plain: Composed
    """The modules without a composition."""
    images: ImageSet
    rows: Rows
    """Logits and all pooled taps of the same images."""
    folds: Tensor
    """Fold of every image, int64 (N,)."""

    def take(self, chosen: Tensor) -> "Judged":
        """Some of the images, int64 (n,)."""
        return Judged(self.plain, self.images.take(chosen), self.rows.take(chosen), self.folds[chosen])


def verdict_of(
    judged: Judged,
    fit: Callable[[Rows, Tensor], Numbers],
    sources: Sequence[Network],
    numbers: int,
    generator: torch.Generator,
) -> tuple[Verdict, bool]:
    """Compare a composition with its alternatives.

    Args:
        judged: The images, their rows and folds.
        fit: Fits the numbers on rows and their folds.
        sources: The source of each module in the order of attaching; empty: `ensemble` is not measured.
        numbers: Numbers that the composition stores.
        generator: Draws `MOST_JUDGED` images if there are more.

    Returns:
        The verdict, and whether the composition is surely worse than the modules without it: the interval of the
        difference lies below 0.
    """
    if len(judged.images) > MOST_JUDGED:
        chosen = torch.randperm(len(judged.images), generator=generator)[:MOST_JUDGED].sort().values
        judged = judged.take(chosen)
    rows, join, old = judged.rows, judged.plain.join, judged.rows.old.shape[1]
    modules = sum(_numbers_of(module.manifest.sizes) for module in judged.plain.attached)
    own = _answers(_cross_fitted(join, rows, judged.folds, fit), rows.labels, old, modules + numbers)
    plain = join(rows.old, rows.answers)
    alternatives: dict[Alternative, Answers] = {"plain": _answers(plain, rows.labels, old, modules)}
    if sources:
        count = sum(sum(p.numel() for p in network.parameters()) for network, _ in sources)
        alternatives["ensemble"] = _answers(_side_by_side(judged, sources), rows.labels, old, count)
    alternatives["probe"] = _probe(judged, plain.shape[1] - old)
    never = torch.full((len(rows.labels), plain.shape[1] - old), -torch.inf)
    alternatives["alone"] = _answers(torch.cat([rows.old, never], 1), rows.labels, old, 0)
    found = rounded(judge(own, alternatives, "cross-fitted"))
    return found, difference_interval(own, alternatives["plain"])[1] < 0


def refuse(verdict: Verdict) -> WorseThanNone:
    """The error of a composition that is surely worse than its modules without it."""
    with_it, without = (100 * verdict.figures[name].average for name in ("module", "plain"))
    return WorseThanNone(
        f"composition: expected one at least as accurate as {NAMES['plain']}, got {with_it:.1f} % on "
        f"{verdict.images:,} images, where they have {without:.1f} %; attach them without it, add images, or set "
        "keep_anyway"
    )


def _cross_fitted(join: Join, rows: Rows, folds: Tensor, fit: Callable[[Rows, Tensor], Numbers]) -> Tensor:
    logits = join(rows.old, rows.answers)
    for fold in folds.unique():
        inside = folds == fold
        # With a single fold, of equal images alone, nothing is left to fit on.
        others = ~inside if bool((~inside).any()) else inside
        logits[inside] = fit(rows.take(others), folds[others]).logits(join, rows.take(inside))
    return logits


def _probe(judged: Judged, new: int) -> Answers:
    rows = judged.rows
    assert rows.features is not None
    count, old = rows.old.shape
    inputs = HeadInputs(rows.old.float(), torch.zeros(count, new), rows.features, rows.labels)
    seen = [tap_width(tap.channels, tap.grid, 1) for tap in judged.plain.traced.taps]
    fitted = cross_fitted_probe(inputs, seen, torch.arange(count), judged.folds)
    assert fitted.logits is not None
    return _answers(fitted.logits, rows.labels, old, sum(p.numel() for p in fitted.head.parameters()))


def _side_by_side(judged: Judged, sources: Sequence[Network]) -> Tensor:
    """Probabilities (N, C): the target's of old classes, and the mean over a class's sources of their softmax."""
    plain = judged.plain
    columns: dict[str, list[Tensor]] = {}
    for module, (network, spec) in zip(plain.attached, sources, strict=True):
        shares = _softmax(network, spec, judged.images)
        for name in module.manifest.classes:
            columns.setdefault(name, []).append(shares[:, spec.classes.index(name)])
    old = judged.rows.old.softmax(1)
    new = [torch.stack(columns[name]).mean(0) for name in plain.classes[old.shape[1] :]]
    return torch.cat([old, torch.stack(new, dim=1)], dim=1)


def _softmax(network: nn.Module, spec: NetworkSpec, images: ImageSet) -> Tensor:
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    views = images.views
    with torch.no_grad():
        parts = [network(preprocess(views[i], spec, device)).cpu() for i in batches(len(images), EVALUATION_BATCH)]
    return torch.cat(parts).double().softmax(1)


def _numbers_of(sizes: object) -> int:
    return sum(getattr(sizes, name) for name in ("module", "adapter", "head"))


def _answers(logits: Tensor, labels: Tensor, old: int, numbers: int) -> Answers:
    right, is_new = logits.argmax(1) == labels, labels >= old
    return Answers(right[~is_new].tolist(), right[is_new].tolist(), numbers)
