"""Evaluates a module on the images that its job held out, and measures the accuracy of the job's networks.

The results are not a part of the bundle. An error here does not fail the job: figures that cannot be computed are
omitted.
"""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from app.datasets.tables import DatasetRow
from app.errors import ZooError
from app.models.service import Accuracy
from app.zoo import Zoo
from pnc_core.analysis.evaluation import multiply_accumulates, predict
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
Facts = Mapping[str, Any]
SIDES = ("old", "new", "average")
MAX_CLASSES = 50
"""A matrix of more classes is not readable."""
MAX_IMAGES_PER_CLASS = 8
"""Limit of the images of each cloned class whose explanations are compared."""
MAX_EXPLANATION_MACS = 2e10
"""Limit of multiply-accumulates for explanations, some seconds of one core; `pnc evidence` has no such limit."""
MIN_IMAGES, MAX_IMAGES = 50, 1000
"""Images for an accuracy. With 50 images its standard error is up to 7 points; more than 1,000 add little precision."""
MAX_ACCURACY_MACS = 4e11
"""Limit of multiply-accumulates for an accuracy: a minute of one core."""


def evaluate_module(
    target: Network, source: Network, images: ImageSet, config: CloneConfig, bundle: Bundle, judged: Facts
) -> dict[str, Any]:
    """The evidence on a module: accuracies of its alternatives, confusion matrices, similarity of explanations.

    Args:
        target: The job's target in eval mode, and its spec; not changed.
        source: The job's source, likewise.
        images: The job's images; explanations are compared on held-out ones, or on all if there are too few.
        config: The job's parameters. A job without labels is not evaluated.
        bundle: The job's full bundle.
        judged: What `clone` has reported as `judged`, see `pnc_core.method.need.judged_facts`.

    Returns:
        `worth`, `confusion` (rows are true classes) and `similarity`; those that cannot be computed are omitted.
    """
    if not config.labels:
        return {}
    found = _worth(bundle) | {name: judged[name] for name in ("confusion",) if name in judged}
    try:
        held = prepare(trace(*target), trace(*source), images, config, lambda progress: None, lambda: False).validation
        return found | _similarity(attach(target[0], bundle), source, held)
    except PncError as error:
        log.warning("the explanations are not compared: %s", error)
        return found


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


def _worth(bundle: Bundle) -> dict[str, Any]:
    """Accuracies of the module's alternatives on the images that judged the module."""
    verdict = bundle.manifest.verdict
    if verdict is None:
        return {}
    alternatives = {name: figure for name, figure in verdict.figures.items() if name != "module"}
    return {
        "worth": {
            name: {side: getattr(figure, side) for side in SIDES if getattr(figure, side) is not None}
            for name, figure in alternatives.items()
        }
    }


def _affordable_images(cost: int) -> int:
    """Number of images within the limits when one image costs `cost` multiply-accumulates."""
    return min(MAX_IMAGES, int(MAX_ACCURACY_MACS // max(1, cost)))


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
