"""Several modules on one target: a few numbers so that they can live together.

Every module was calibrated against the target alone; what it says of images of
another module's classes nobody has asked it. One scale and one offset for each
module's logits put that right. They belong to the set of modules and not to any of
them, so that bundles stay as they are, and attaching or detaching starts anew.

Own choice; a scale and an offset keep the order inside every module.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.composed import Composed
from pnc_core.data import ImageSet
from pnc_core.errors import DataError
from pnc_core.evaluation import predict

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
        DataError: there are no images of a module's classes.
    """
    used = images.only(composed.classes)
    for module in composed.attached:
        if not len(used.only(module.manifest.classes)):
            raise DataError(f"images: expected some of {module.manifest.classes}, got none; add images of every module")
    plain = Composed(composed.target, composed.traced, composed.attached)
    logits = predict(plain, composed.traced.spec, used.images).double()
    owner = torch.tensor([_owner(composed, name) for name in composed.classes])
    numbers = torch.zeros(len(composed.attached), 2, dtype=torch.float64, requires_grad=True)
    _minimise(logits, used.labels, owner, numbers)
    balance = [(float(log_scale.exp()), float(offset)) for log_scale, offset in numbers.detach().unbind()]
    return Composed(composed.target, composed.traced, composed.attached, balance)


def _owner(composed: Composed, name: str) -> int:
    """Index of the first module that carries the class; -1: the target has it."""
    return next((i for i, module in enumerate(composed.attached) if name in module.manifest.classes), -1)


def _minimise(logits: Tensor, labels: Tensor, owner: Tensor, numbers: Tensor) -> None:
    """Cross-entropy with the same weight for every class, by L-BFGS; `numbers` (modules, 2) is changed in place."""
    counts = torch.bincount(labels, minlength=logits.shape[1]).double().clamp_min(1)
    weights = (1 / counts)[labels]
    weights = weights / weights.sum()
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")
    zero = torch.zeros(1, 2, dtype=torch.float64)

    def closure() -> Tensor:
        optimizer.zero_grad()
        log_scale, offset = torch.cat([numbers, zero])[owner].unbind(1)
        losses = F.cross_entropy(logits * log_scale.exp() + offset, labels, reduction="none")
        loss = (losses * weights).sum() + WEIGHT_DECAY * numbers.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
