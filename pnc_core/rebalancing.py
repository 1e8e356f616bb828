"""Several modules on one target: a few numbers so that they can live together.

Every module was calibrated against the target alone; what it says of images of
another module's classes nobody has asked it. One scale and one offset for each
module's logits put that right. They belong to the set of modules and not to any of
them, so that bundles stay as they are, and attaching or detaching starts anew.

Own choice; a scale and an offset keep the order inside every module.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.composed import Composed
from pnc_core.data import ImageSet, batches, preprocess
from pnc_core.errors import DataError
from pnc_core.evaluation import BATCH
from pnc_core.reading import Reader

Answer = tuple[Tensor | None, Tensor]
"""A module's correction of the old logits (N, old), if any, and its own logits (N, K)."""
WEIGHT_DECAY = 1e-3
"""On log-scale and offset: without evidence modules stay as they were calibrated."""


def rebalance(composed: Composed, images: ImageSet) -> Composed:
    """Fit scales and offsets of all modules together.

    Args:
        composed: Target with modules; left as it was.
        images: Labelled by class name, of every module's classes and of the target's; others are left out.

    Returns:
        A composed network of the same target and modules, with its own balance.

    Raises:
        DataError: there are no images of a module's classes, or of the target's.
    """
    used = images.only(composed.classes)
    for classes in (composed.traced.spec.classes, *(module.manifest.classes for module in composed.attached)):
        if not len(used.only(classes)):
            raise DataError(f"images: expected some of {classes}, got none; add images of the target and every module")
    plain = Composed(composed.target, composed.traced, composed.attached)
    balance = fit_balance(plain.join, *_answers(plain, used.images), used.labels)
    return Composed(composed.target, composed.traced, composed.attached, balance)


def _answers(plain: Composed, images: Tensor) -> tuple[Tensor, list[Answer]]:
    """The target's logits and every module's answer, float64, of all images."""
    reader, spec, device = Reader(plain.traced, plain.reads), plain.traced.spec, plain.traced.device
    rows = []
    with torch.no_grad():
        for index in batches(len(images), BATCH):
            old, activations = reader(preprocess(images[index], spec, device))
            rows.append((old, plain.answers(old, activations)))
    modules = zip(*(answers for _, answers in rows), strict=True)
    return _column([old for old, _ in rows]), [
        (
            None if parts[0][0] is None else _column([c for c, _ in parts if c is not None]),
            _column([o for _, o in parts]),
        )
        for parts in modules
    ]


def _column(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).double().cpu()


def fit_balance(
    join: Callable[[Tensor, list[Answer]], Tensor], old: Tensor, answers: list[Answer], labels: Tensor
) -> list[tuple[float, float]]:
    """Scale and offset of every answer, by cross-entropy with the same weight for every class and L-BFGS.

    Args:
        join: The target's logits and the answers -> logits of all classes (N, classes).
        old: The target's logits (N, old), float64.
        answers: Of every module, float64.
        labels: int64 (N,).
    """
    numbers = torch.zeros(len(answers), 2, dtype=torch.float64, requires_grad=True)
    weights = (1 / torch.bincount(labels).double())[labels]
    weights = weights / weights.sum()
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        pairs = zip(answers, numbers.unbind(), strict=True)
        scaled = [(correction, own * log_scale.exp() + offset) for (correction, own), (log_scale, offset) in pairs]
        losses = F.cross_entropy(join(old, scaled), labels, reduction="none")
        loss = (losses * weights).sum() + WEIGHT_DECAY * numbers.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return [(float(log_scale.exp()), float(offset)) for log_scale, offset in numbers.detach().unbind()]
