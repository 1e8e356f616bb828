"""What a module is worth on the images that its job held out, as small matrices for people to look at.

Nothing here goes into the bundle, and nothing here can fail a job: what cannot be judged is left out.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from pnc_core.bundle import Bundle
from pnc_core.composed import Composed, attach
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.data import ImageSet
from pnc_core.errors import PncError
from pnc_core.evaluation import multiply_accumulates, predict
from pnc_core.evidence import module_logits, network_logits, similarity
from pnc_core.job import prepare
from pnc_core.lime import VARIANTS
from pnc_core.positions import trace

log = logging.getLogger(__name__)
Network = tuple[nn.Module, NetworkSpec]
MOST_CLASSES = 50
"""A larger confusion matrix says nothing to people."""
PER_CLASS = 8
"""Images of each cloned class whose explanations are compared, at most."""
EFFORT = 2e10
"""Multiply-accumulates that explanations may cost, some seconds of one core; what costs more is `pnc evidence`'s."""


def judged(target: Network, source: Network, images: ImageSet, config: CloneConfig, bundle: Bundle) -> dict[str, Any]:
    """Who is taken for whom with and without the module, and how alike source and module explain.

    Args:
        target: The job's target in eval mode, and its spec; not changed.
        source: The job's source, likewise.
        images: The job's images; only those that it held out are looked at.
        config: The job's parameters. Images that nobody labelled are not judged.
        bundle: What it made, full.

    Returns:
        `confusion` and `similarity`, as far as they make sense; rows are true classes.
    """
    if not config.labels:
        return {}
    try:
        held = prepare(trace(*target), trace(*source), images, config, lambda progress: None, lambda: False).validation
        composed = attach(target[0], bundle)
        return _confusion(composed, held) | _similarity(composed, source, held)
    except PncError as error:
        log.warning("not judged: %s", error)
        return {}


def _confusion(composed: Composed, held: ImageSet) -> dict[str, Any]:
    classes = composed.classes
    if len(classes) > MOST_CLASSES:
        return {}
    used, spec = held.only(classes), composed.traced.spec
    before, after = (predict(network, spec, used.images).argmax(1).cpu() for network in (composed.target, composed))
    matrices = {
        "before": _counts(used.labels, before, len(classes)),
        "after": _counts(used.labels, after, len(classes)),
    }
    return {"confusion": {"classes": [*classes], **matrices}}


def _counts(labels: Tensor, predicted: Tensor, classes: int) -> list[list[int]]:
    """Images by true class (rows) and by the class they were taken for (columns)."""
    counted: list[list[int]] = (
        torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, -1).tolist()
    )
    return counted


def _similarity(composed: Composed, source: Network, held: ImageSet) -> dict[str, Any]:
    (module,) = composed.attached
    cloned = module.manifest.classes
    cost = 2 * VARIANTS * multiply_accumulates(*source) * len(cloned)
    limit = min(PER_CLASS, int(EFFORT // cost))
    if limit == 0 or len(cloned) > MOST_CLASSES:
        return {}
    found = similarity(
        network_logits(*source),
        module_logits(composed.traced, module),
        held.only(cloned),
        source[1],
        cloned,
        limit=limit,
    )
    return {
        "similarity": {
            "rows": [*found.rows],
            "columns": [*found.columns],
            "module": [[round(value, 4) for value in row] for row in found.module.tolist()],
            "source": [[round(value, 4) for value in row] for row in found.source.tolist()],
        }
    }
