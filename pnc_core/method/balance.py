"""Several modules on one target: what they need to live together.

Every module was calibrated against the target alone; what it says of images of
another module's classes nobody has asked it. One scale and one offset for each
module's logits put them on one scale; where modules know little of each other's
classes, a head that all share corrects every logit from the target's taps as well.
Either belongs to the set of modules and not to any of them, so that bundles stay as
they are, and attaching or detaching starts anew.

Own choice; a scale and an offset keep the order inside every module, the head does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Augmentation
from pnc_core.devices import full_precision
from pnc_core.errors import ConfigError, DataError, MismatchError
from pnc_core.graph.features import Reader
from pnc_core.images import EVALUATION_BATCH, ImageSet, Views, augment, batches, preprocess
from pnc_core.method.fit_head import LARGE_FIT_ITERATIONS, SMALL_FIT
from pnc_core.module.composed import Composed
from pnc_core.module.head import Head

Answer = tuple[Tensor | None, Tensor]
"""A module's correction of the old logits (N, old), if any, and its own logits (N, K)."""
CommonHead = Literal["affine", "joint"]
"""What modules share: scales and offsets, or a correction of all logits as well."""
WEIGHT_DECAY = 1e-3
"""On log-scale and offset: without evidence modules stay as they were calibrated. On the standardised weights of a
common head the same, chosen on a development split of CIFAR-100 (0.001 to 0.003 do about as well)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What target and modules say, one row an image."""

    old: Tensor
    """The target's logits (N, old)."""
    answers: list[Answer]
    """Every module's."""
    labels: Tensor
    """int64 (N,)."""
    features: Tensor | None = None
    """What a common head reads (N, D); None: there is none."""


def rebalance(
    composed: Composed,
    images: ImageSet,
    *,
    head: CommonHead = "affine",
    augmentation: Augmentation = "none",
    seed: int = 0,
) -> Composed:
    """Fit what all modules need together.

    Args:
        composed: Target with modules; left as it was.
        images: Labelled by class name, of every module's classes and of the target's; others are left out.
        head: `affine` fits scales and offsets. `joint` leaves the modules' own corrections of old logits out and
            fits one of all logits that reads the target's taps.
        augmentation: With any but `none` one more view of every image is learned from: networks are surer of images
            that they were trained on than of new ones.
        seed: Draws the views.

    Returns:
        A composed network of the same target and modules, with its own balance.

    Raises:
        ConfigError: an unknown head or augmentation.
        DataError: there are no images of a module's classes, or of the target's.
        MismatchError: a `joint` head was asked for, and a module's locality is strict: old answers stand.
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
        raise MismatchError(f"head: expected affine beside modules of strict locality, which {strict} have, got joint")
    plain = Composed(composed.target, composed.traced, composed.attached)
    views = [used.views]
    if augmentation != "none":
        views.append(augment(used.views, augmentation, torch.Generator().manual_seed(seed)))
    rows = _rows(plain, Views.cat(views), used.labels.repeat(len(views)), corrects=head == "joint")
    balance, common = fit_balance(plain.join, rows)
    made = Composed(composed.target, composed.traced, composed.attached, balance, common)
    return made.to(composed.traced.device)


def _rows(plain: Composed, images: Views, labels: Tensor, *, corrects: bool) -> Rows:
    """What target and modules say of the images, float64, and what a common head that corrects them reads."""
    names = [p.name for p in plain.traced.taps if corrects]
    reader = Reader(plain.traced, (*plain.reads, *names))
    spec, device = plain.traced.spec, plain.traced.device
    said = []
    with torch.no_grad():
        for index in batches(len(images), EVALUATION_BATCH):
            old, activations = reader(preprocess(images[index], spec, device))
            activations |= plain.entered(images[index])
            seen = plain.pooled(activations) if corrects else old[:, :0]
            said.append((old, seen.cpu(), plain.answers(old, activations)))
    modules = zip(*(answers for *_, answers in said), strict=True)
    answers = [
        (
            None if corrects or parts[0][0] is None else _column([c for c, _ in parts if c is not None]),
            _column([o for _, o in parts]),
        )
        for parts in modules
    ]
    features = torch.cat([seen for _, seen, _ in said]) if corrects else None
    return Rows(_column([old for old, *_ in said]), answers, labels, features)


def _column(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).double().cpu()


@full_precision()
def fit_balance(
    join: Callable[[Tensor, list[Answer]], Tensor], rows: Rows
) -> tuple[list[tuple[float, float]], Head | None]:
    """Scale and offset of every answer, and a common head where there is something to read for it.

    By cross-entropy with the same weight for every class, and L-BFGS.

    Args:
        join: The target's logits and the answers -> logits of all classes (N, classes).
        rows: Of images of all classes.

    Returns:
        Scales and offsets in the order of the answers; a `joint` head behind them.
    """
    correction = None if rows.features is None else _Correction(rows.features, join(rows.old, rows.answers).shape[1])
    dtype = torch.float64 if correction is None else correction.features.dtype
    old = rows.old.to(dtype)
    answers = [(None if c is None else c.to(dtype), own.to(dtype)) for c, own in rows.answers]
    numbers = torch.zeros(len(answers), 2, dtype=dtype, requires_grad=True)
    learned = [numbers, *(() if correction is None else (correction.weight, correction.bias))]
    weights = (1 / torch.bincount(rows.labels).to(dtype))[rows.labels]
    weights = weights / weights.sum()
    iterations = 100 if dtype == torch.float64 else LARGE_FIT_ITERATIONS
    optimizer = torch.optim.LBFGS(learned, max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        pairs = zip(answers, numbers.unbind(), strict=True)
        logits = join(old, [(c, own * log_scale.exp() + offset) for (c, own), (log_scale, offset) in pairs])
        logits = logits if correction is None else logits + correction()
        loss = (F.cross_entropy(logits, rows.labels, reduction="none") * weights).sum()
        decayed = torch.cat([part.flatten() for part in learned[:2]])
        loss = loss + WEIGHT_DECAY * decayed.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    balance = [(float(log_scale.exp()), float(offset)) for log_scale, offset in numbers.detach().unbind()]
    return balance, None if correction is None else correction.head(old.shape[1])


class _Correction:
    """A linear correction of all logits while it is learned: on standardised features."""

    def __init__(self, features: Tensor, classes: int) -> None:
        # As heads are fitted: small ones in double precision, large ones would take twice as long.
        dtype = torch.float64 if features.numel() <= SMALL_FIT else torch.float32
        self._mean, self._std = features.to(dtype).mean(0), features.to(dtype).std(0).clamp_min(1e-6)
        self.features = (features.to(dtype) - self._mean) / self._std
        self.weight = torch.zeros(classes, features.shape[1], dtype=dtype, requires_grad=True)
        self.bias = torch.zeros(classes, dtype=dtype, requires_grad=True)

    def __call__(self) -> Tensor:
        return F.linear(self.features, self.weight, self.bias)

    def head(self, old_classes: int) -> Head:
        """The same on features as they are."""
        classes, width = self.weight.shape
        head = Head("joint", width, old_classes, classes - old_classes)
        weight = self.weight.detach() / self._std
        head.weight.data = weight.float()
        head.bias.data = (self.bias.detach() - weight @ self._mean).float()
        return head.requires_grad_(False)
