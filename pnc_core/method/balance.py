"""Balance the logits of several modules on one target.

Every module was calibrated against the target alone, never on images of another module's classes. With the target's
logits z_0, module m's logits z_m and the target's pooled taps f, the balanced logits are

    affine:  (z_0, s_1 z_1 + o_1, s_2 z_2 + o_2, ...)
    joint:   the same + W f + b    (one common head for all modules)

The numbers s_m, o_m, W, b minimise, with the same weight for every class,

    cross-entropy + 0.001 (sum_m (ln s_m)^2 + o_m^2 + |W|^2)

A balance belongs to the set of attached modules. Bundles do not contain it, and attaching or detaching a module drops
it.

Own choice. `affine` keeps the order of the logits inside every module, `joint` does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Augmentation
from pnc_core.devices import full_precision
from pnc_core.errors import ConfigError, DataError, MismatchError
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import PositionInfo
from pnc_core.images import EVALUATION_BATCH, ImageSet, Views, augment, batches, preprocess
from pnc_core.method.heads.fit import LARGE_FIT_ITERATIONS, SMALL_FIT
from pnc_core.module.composed import Composed
from pnc_core.module.head import Head, pool_taps

ModuleLogits = tuple[Tensor | None, Tensor]
"""A module's correction of the old logits (N, old), or None, and its own logits (N, K)."""
CommonHead = Literal["affine", "joint"]
"""`affine`: scales and offsets only; `joint`: also a linear correction of all logits."""
WEIGHT_DECAY = 1e-3
"""On ln s_m, o_m and the standardised W. It keeps s_m = 1 and o_m = 0 where the images give no reason to change them.

Chosen on a development split of CIFAR-100; values from 0.001 to 0.003 give about the same accuracy.
"""


@dataclass(frozen=True, eq=False)
class Rows:
    """Logits of target and modules, one row per image."""

    old: Tensor
    """The target's logits (N, old)."""
    answers: list[ModuleLogits]
    """Logits of every module."""
    labels: Tensor
    """int64 (N,)."""
    features: Tensor | None = None
    """Pooled taps (N, D) for a common head; None: no common head."""

    def without_corrections(self) -> "Rows":
        """The same rows without the modules' own corrections of old logits, which a common head replaces."""
        return replace(self, answers=[(None, own) for _, own in self.answers])

    def take(self, rows: Tensor) -> "Rows":
        """The rows at int64 or bool `rows`."""
        answers = [(None if c is None else c[rows], own[rows]) for c, own in self.answers]
        features = None if self.features is None else self.features[rows]
        return Rows(self.old[rows], answers, self.labels[rows], features)


def rebalance(
    composed: Composed,
    images: ImageSet,
    *,
    head: CommonHead = "affine",
    augmentation: Augmentation = "none",
    seed: int = 0,
) -> Composed:
    """Fit the balance of all attached modules.

    Args:
        composed: Target with modules; not changed.
        images: Images of every module's classes and of the target's, labelled by class name; others are ignored.
        head: `affine` fits scales and offsets. `joint` also fits a common head on the target's taps, which replaces the
            modules' own corrections of old logits.
        augmentation: Unless `none`, one augmented view per image is added. Networks are surer of images that they were
            trained on than of new images, and views reduce this effect.
        seed: Seed of the views.

    Returns:
        A composed network of the same target and modules, with the new balance.

    Raises:
        ConfigError: the head or the augmentation is unknown.
        DataError: there are no images of a module's classes, or of the target's.
        MismatchError: `head` is `joint`, and a module has strict locality, which forbids changes of old logits.
    """
    for name, got, kinds in (("head", head, CommonHead), ("augmentation", augmentation, Augmentation)):
        if got not in get_args(kinds):
            raise ConfigError(f"{name}: expected one of {get_args(kinds)}, got {got!r}")
    used = images.only(composed.classes)
    for classes in (composed.traced.spec.classes, *(module.manifest.classes for module in composed.attached)):
        if not len(used.only(classes)):
            raise DataError(f"images: expected some of {classes}, got none; add images of the target and every module")
    strict = [module.manifest.classes for module in composed.attached if module.manifest.head.strict]
    if head == "joint" and strict:
        raise MismatchError(f"head: expected affine beside modules of strict locality ({strict}), got joint")
    plain = Composed(composed.target, composed.traced, composed.attached)
    views = [used.views]
    if augmentation != "none":
        views.append(augment(used.views, augmentation, torch.Generator().manual_seed(seed)))
    taps = plain.traced.taps if head == "joint" else []
    rows = rows_of(plain, Views.cat(views), used.labels.repeat(len(views)), taps)
    balance, common = fit_balance(plain.join, rows.without_corrections() if taps else rows)
    made = Composed(composed.target, composed.traced, composed.attached, balance, common)
    return made.to(composed.traced.device)


def rows_of(
    plain: Composed,
    images: Views,
    labels: Tensor,
    taps: Sequence[PositionInfo],
    pause: Callable[[float], None] = lambda done: None,
) -> Rows:
    """Logits of target and modules, float64, and pooled taps of the target, in one pass.

    Args:
        plain: Target with modules, without balance; not changed.
        images: N images.
        labels: int64 (N,).
        taps: The taps to pool to one cell each; empty: the rows have no features.
        pause: Is called before each batch with the share of the images that are done, 0..1. Its errors end the pass.
    """
    reader = Reader(plain.traced, tuple(dict.fromkeys((*plain.reads, *(tap.name for tap in taps)))))
    spec, device = plain.traced.spec, plain.traced.device
    said = []
    with torch.no_grad():
        for index in batches(len(images), EVALUATION_BATCH):
            pause(int(index[0]) / len(images))
            old, activations = reader(preprocess(images[index], spec, device))
            activations |= plain.entered(images[index])
            pooled = [activations[tap.name] for tap in taps]
            seen = pool_taps(pooled, [tap.axis for tap in taps], 1) if taps else old[:, :0]
            said.append((old, seen.cpu(), plain.answers(old, activations)))
    modules = zip(*(answers for *_, answers in said), strict=True)
    answers = [
        (
            None if parts[0][0] is None else _column([c for c, _ in parts if c is not None]),
            _column([o for _, o in parts]),
        )
        for parts in modules
    ]
    features = torch.cat([seen for _, seen, _ in said]) if taps else None
    return Rows(_column([old for old, *_ in said]), answers, labels, features)


def _column(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).double().cpu()


@full_precision()
def fit_balance(
    join: Callable[[Tensor, list[ModuleLogits]], Tensor], rows: Rows
) -> tuple[list[tuple[float, float]], Head | None]:
    """Fit scales, offsets and, if `rows.features` is given, a common head, by L-BFGS.

    Args:
        join: Takes the target's logits and the modules' logits, returns logits of all classes (N, classes).
        rows: Logits for images of all classes.

    Returns:
        Scale and offset of every module, in the order of `rows.answers`; a `joint` head or None.
    """
    correction = None if rows.features is None else _Correction(rows.features, join(rows.old, rows.answers).shape[1])
    learned = [] if correction is None else [correction.weight, correction.bias]
    balance = _minimise(join, rows, correction, learned, learned[:1])
    return balance, None if correction is None else correction.head(rows.old.shape[1])


@full_precision()
def fit_scores(
    join: Callable[[Tensor, list[ModuleLogits]], Tensor], rows: Rows, scores: Tensor
) -> tuple[list[tuple[float, float]], float]:
    """Fit scales, offsets, and one factor g of scores that are added to all logits, by L-BFGS.

    Args:
        join: As for `fit_balance`.
        rows: Logits for images of all classes; features are ignored.
        scores: Scores (N, classes) of a head that has not seen the image ("stacking").

    Returns:
        Scale and offset of every module, in the order of `rows.answers`; and g.

    References:
        Wolpert, "Stacked generalization", 1992; own choice: one factor, without a prior.
    """
    factor = torch.zeros((), dtype=torch.float64, requires_grad=True)
    exact = scores.double()
    balance = _minimise(join, rows, lambda: exact * factor, [factor], [])
    return balance, float(factor.detach())


def _minimise(
    join: Callable[[Tensor, list[ModuleLogits]], Tensor],
    rows: Rows,
    correction: Callable[[], Tensor] | None,
    learned: Sequence[Tensor],
    decayed: Sequence[Tensor],
) -> list[tuple[float, float]]:
    """Minimise the loss; returns scale and offset of every module, and leaves `learned` at its minimum.

    Args:
        join: As for `fit_balance`.
        rows: Logits and labels.
        correction: Correction of all logits (N, classes) from `learned`; None: there is none.
        learned: Numbers to fit beside scales and offsets; their dtype is that of the fit.
        decayed: Those of `learned` that the weight decay covers.
    """
    dtype = learned[0].dtype if learned else torch.float64
    old = rows.old.to(dtype)
    answers = [(None if c is None else c.to(dtype), own.to(dtype)) for c, own in rows.answers]
    numbers = torch.zeros(len(answers), 2, dtype=dtype, requires_grad=True)
    weights = (1 / torch.bincount(rows.labels).to(dtype))[rows.labels]
    weights = weights / weights.sum()
    iterations = 100 if dtype == torch.float64 else LARGE_FIT_ITERATIONS
    optimizer = torch.optim.LBFGS([numbers, *learned], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        pairs = zip(answers, numbers.unbind(), strict=True)
        logits = join(old, [(c, own * log_scale.exp() + offset) for (c, own), (log_scale, offset) in pairs])
        logits = logits if correction is None else logits + correction()
        loss = (F.cross_entropy(logits, rows.labels, reduction="none") * weights).sum()
        loss = loss + WEIGHT_DECAY * torch.cat([part.flatten() for part in (numbers, *decayed)]).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return [(float(log_scale.exp()), float(offset)) for log_scale, offset in numbers.detach().unbind()]


class _Correction:
    """A trainable linear correction of all logits, on standardised features."""

    def __init__(self, features: Tensor, classes: int) -> None:
        # As in `fit_head`: float64 would take twice as long for large fits.
        dtype = torch.float64 if features.numel() <= SMALL_FIT else torch.float32
        self._mean, self._std = features.to(dtype).mean(0), features.to(dtype).std(0).clamp_min(1e-6)
        self.features = (features.to(dtype) - self._mean) / self._std
        self.weight = torch.zeros(classes, features.shape[1], dtype=dtype, requires_grad=True)
        self.bias = torch.zeros(classes, dtype=dtype, requires_grad=True)

    def __call__(self) -> Tensor:
        return F.linear(self.features, self.weight, self.bias)

    def head(self, old_classes: int) -> Head:
        """The same correction as a head on unstandardised features."""
        classes, width = self.weight.shape
        head = Head("joint", width, old_classes, classes - old_classes)
        weight = self.weight.detach() / self._std
        head.weight.data = weight.float()
        head.bias.data = (self.bias.detach() - weight @ self._mean).float()
        return head.requires_grad_(False)
