"""What a module is worth on the images that its job held out, and how well its networks do by themselves.

Nothing here goes into the bundle, and nothing here can fail a job: what cannot be judged is left out.
"""

import logging
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn

from app.datasets.tables import DatasetRow
from app.errors import ZooError
from app.models.service import Accuracy
from app.zoo import Zoo
from pnc_core.analysis.evaluation import direct_ensembles, multiply_accumulates, predict
from pnc_core.analysis.evidence import module_logits, network_logits, similarity
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.errors import PncError
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet
from pnc_core.method.job import prepare
from pnc_core.method.lime import VARIANTS
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import Composed, attach
from pnc_core.module.entry import pixels_for
from workers.loading import load_images

log = logging.getLogger(__name__)
Network = tuple[nn.Module, NetworkSpec]
MOST_CLASSES = 50
"""A larger confusion matrix says nothing to people."""
PER_CLASS = 8
"""Images of each cloned class whose explanations are compared, at most."""
EFFORT = 2e10
"""Multiply-accumulates that explanations may cost, some seconds of one core; what costs more is `pnc evidence`'s."""
LEAST_IMAGES, MOST_IMAGES = 50, 1000
"""On fewer images an accuracy is chance (at 50 its standard error is up to 7 points); more than 1,000 add little."""
MEASURING = 4e11
"""Multiply-accumulates that an accuracy may cost: a minute of one core."""


def judged(target: Network, source: Network, images: ImageSet, config: CloneConfig, bundle: Bundle) -> dict[str, Any]:
    """Who is taken for whom with and without the module, and how alike source and module explain.

    Args:
        target: The job's target in eval mode, and its spec; not changed.
        source: The job's source, likewise.
        images: The job's images; only those that it held out are looked at.
        config: The job's parameters. Images that nobody labelled are not judged.
        bundle: What it made, full.

    Returns:
        `worth`, `confusion` and `similarity`, as far as they make sense; rows are true classes.
    """
    if not config.labels:
        return {}
    try:
        held = prepare(trace(*target), trace(*source), images, config, lambda progress: None, lambda: False).validation
        composed = attach(target[0], bundle)
        return _rivals(target, source, config, held) | _confusion(composed, held) | _similarity(composed, source, held)
    except PncError as error:
        log.warning("not judged: %s", error)
        return {}


def measured(zoo: Zoo, dataset: DatasetRow, network: Network) -> Accuracy | None:
    """How well a network does by itself on a dataset that has images of all its classes.

    Neither of a job's networks learns from the job, so any image of its dataset will do; whether the network
    was trained on it before only its owner knows.

    Args:
        zoo: Where the images are.
        dataset: Images with labels.
        network: In eval mode, and its spec.

    Returns:
        None: images of a class are missing, or as many images as would tell something are too much work.
    """
    spec = network[1]
    try:
        most = _affordable(multiply_accumulates(*network))
        available = [dataset.counts.get(name, 0) for name in spec.classes]
        if min(available) == 0 or min(most, sum(available)) < LEAST_IMAGES:
            return None
        images = load_images(zoo, dataset, spec.classes, [spec.geometry], most=most)
        right = predict(*network, images.views).argmax(1) == images.labels
    except (PncError, ZooError) as error:
        log.warning("accuracy not measured: %s", error)
        return None
    return Accuracy(float(right.double().mean()), len(images), dataset.id)


def _rivals(target: Network, source: Network, config: CloneConfig, held: ImageSet) -> dict[str, Any]:
    """What the target alone and the direct ensemble, the better of its two kinds, make of the held-out images."""
    most = _affordable(2 * (multiply_accumulates(*target) + multiply_accumulates(*source)))
    if most < LEAST_IMAGES:
        return {}
    used = held if len(held) <= most else held.sample(most, torch.Generator().manual_seed(0))
    both = direct_ensembles(target, source, config.classes, used)
    best = max(both.values(), key=lambda found: found.average)
    alone = {"old": best.target_old, "new": 0.0, "average": best.target_old / 2}
    ensemble = {"old": best.old, "new": best.new, "average": best.average}
    return {"worth": {"alone": _numbers(alone), "ensemble": _numbers(ensemble)}}


def _numbers(shares: dict[str, float]) -> dict[str, float]:
    """Without those of sides that have no images, which JSON cannot say."""
    return {name: round(share, 6) for name, share in shares.items() if not isnan(share)}


def _affordable(cost: int) -> int:
    """How many images may be looked at when one costs so many multiply-accumulates."""
    return min(MOST_IMAGES, int(MEASURING // max(1, cost)))


def _confusion(composed: Composed, held: ImageSet) -> dict[str, Any]:
    classes = composed.classes
    if len(classes) > MOST_CLASSES:
        return {}
    used, spec = held.only(classes), composed.traced.spec
    before, after = (predict(network, spec, used.views).argmax(1).cpu() for network in (composed.target, composed))
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
        module_spec=pixels_for(module.manifest),
    )
    return {
        "similarity": {
            "rows": [*found.rows],
            "columns": [*found.columns],
            "module": [[round(value, 4) for value in row] for row in found.module.tolist()],
            "source": [[round(value, 4) for value in row] for row in found.source.tolist()],
        }
    }
