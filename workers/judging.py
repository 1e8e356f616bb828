"""Evaluates a module on the images that its job held out, and measures the accuracy of the job's networks.

The results are not a part of the bundle. An error here does not fail the job: figures that cannot be computed are
omitted.
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
MAX_CLASSES = 50
"""A confusion matrix of more classes is not readable."""
MAX_IMAGES_PER_CLASS = 8
"""Limit of the images of each cloned class whose explanations are compared."""
MAX_EXPLANATION_MACS = 2e10
"""Limit of multiply-accumulates for explanations, some seconds of one core; `pnc evidence` has no such limit."""
MIN_IMAGES, MAX_IMAGES = 50, 1000
"""Images for an accuracy. With 50 images its standard error is up to 7 points; more than 1,000 add little precision."""
MAX_ACCURACY_MACS = 4e11
"""Limit of multiply-accumulates for an accuracy: a minute of one core."""


def evaluate_module(
    target: Network, source: Network, images: ImageSet, config: CloneConfig, bundle: Bundle
) -> dict[str, Any]:
    """Evaluate a module on the job's held-out images: accuracies, confusion matrices, similarity of explanations.

    Args:
        target: The job's target in eval mode, and its spec; not changed.
        source: The job's source, likewise.
        images: The job's images; only the held-out ones are used.
        config: The job's parameters. A job without labels is not evaluated.
        bundle: The job's full bundle.

    Returns:
        `worth`, `confusion` (rows are true classes) and `similarity`; those that cannot be computed are omitted.
    """
    if not config.labels:
        return {}
    try:
        held = prepare(trace(*target), trace(*source), images, config, lambda progress: None, lambda: False).validation
        composed = attach(target[0], bundle)
        return _worth(target, source, config, held) | _confusion(composed, held) | _similarity(composed, source, held)
    except PncError as error:
        log.warning("the module is not evaluated: %s", error)
        return {}


def measure_accuracy(zoo: Zoo, dataset: DatasetRow, network: Network) -> Accuracy | None:
    """Measure the accuracy of a network on a dataset with images of all its classes.

    A job trains neither of its networks, so all images of the dataset can be used. The service does not know whether
    the network was trained on them earlier.

    Args:
        zoo: The open zoo.
        dataset: Images with labels.
        network: The network in eval mode, and its spec.

    Returns:
        None: a class has no images, or `MIN_IMAGES` images are not available or cost too much.
    """
    spec = network[1]
    try:
        limit = _affordable_images(multiply_accumulates(*network))
        available = [dataset.counts.get(name, 0) for name in spec.classes]
        if min(available) == 0 or min(limit, sum(available)) < MIN_IMAGES:
            return None
        images = load_images(zoo, dataset, spec.classes, [spec.geometry], max_images=limit)
        right = predict(*network, images.views).argmax(1) == images.labels
    except (PncError, ZooError) as error:
        log.warning("the accuracy is not measured: %s", error)
        return None
    return Accuracy(float(right.double().mean()), len(images), dataset.id)


def _worth(target: Network, source: Network, config: CloneConfig, held: ImageSet) -> dict[str, Any]:
    """Accuracies on the held-out images of the target alone and of the better direct ensemble (logits or softmax)."""
    limit = _affordable_images(2 * (multiply_accumulates(*target) + multiply_accumulates(*source)))
    if limit < MIN_IMAGES:
        return {}
    used = held if len(held) <= limit else held.sample(limit, torch.Generator().manual_seed(0))
    both = direct_ensembles(target, source, config.classes, used)
    best = max(both.values(), key=lambda found: found.average)
    alone = {"old": best.target_old, "new": 0.0, "average": best.target_old / 2}
    ensemble = {"old": best.old, "new": best.new, "average": best.average}
    return {"worth": {"alone": _numbers(alone), "ensemble": _numbers(ensemble)}}


def _numbers(shares: dict[str, float]) -> dict[str, float]:
    """Round shares, and drop NaN, the share of a side without images: JSON has no NaN."""
    return {name: round(share, 6) for name, share in shares.items() if not isnan(share)}


def _affordable_images(cost: int) -> int:
    """Number of images within the limits when one image costs `cost` multiply-accumulates."""
    return min(MAX_IMAGES, int(MAX_ACCURACY_MACS // max(1, cost)))


def _confusion(composed: Composed, held: ImageSet) -> dict[str, Any]:
    classes = composed.classes
    if len(classes) > MAX_CLASSES:
        return {}
    used, spec = held.only(classes), composed.traced.spec
    before, after = (predict(network, spec, used.views).argmax(1).cpu() for network in (composed.target, composed))
    matrices = {
        "before": _counts(used.labels, before, len(classes)),
        "after": _counts(used.labels, after, len(classes)),
    }
    return {"confusion": {"classes": [*classes], **matrices}}


def _counts(labels: Tensor, predicted: Tensor, classes: int) -> list[list[int]]:
    """Number of images by true class (rows) and predicted class (columns)."""
    counted: list[list[int]] = (
        torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, -1).tolist()
    )
    return counted


def _similarity(composed: Composed, source: Network, held: ImageSet) -> dict[str, Any]:
    (module,) = composed.attached
    cloned = module.manifest.classes
    cost = 2 * VARIANTS * multiply_accumulates(*source) * len(cloned)
    limit = min(MAX_IMAGES_PER_CLASS, int(MAX_EXPLANATION_MACS // cost))
    if limit == 0 or len(cloned) > MAX_CLASSES:
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
