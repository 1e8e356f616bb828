"""Checks a version on the labelled images of a dataset, and the networks of a job on the job's images."""

import math
from typing import Any

from app.datasets.tables import DatasetRow
from app.models import checks
from app.models.advice import result_of
from app.models.service import Accuracy
from app.models.tables import VersionRow
from app.zoo import Zoo
from pnc_core.analysis.check import Check, check, measured
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.config import NetworkSpec
from pnc_core.errors import NearChance
from pnc_core.images import ImageSet
from workers.loading import load_images, load_version
from workers.networks.judging import Network

MEASURE_MACS, SEARCH_MACS = 5e11, 1e12
"""Limits of multiply-accumulates: some minutes of one core in all."""
MAX_IMAGES, MAX_BYTES = 10_000, 256 * 2**20
"""Limits of a check's images, and of their decoded bytes."""
JOB_IMAGES, JOB_MACS = 500, 1e11
"""Limits of the measurement before a job. Own choice: seconds of one core, next to minutes of the job."""
CHANCE_TIMES = 1.5
"""A job is refused below this multiple of chance; the badge of a version uses 2. Own choice: a refusal costs more."""


def check_images(zoo: Zoo, version: VersionRow, dataset: DatasetRow) -> tuple[dict[str, Any], Accuracy | None]:
    """Check a version on a dataset.

    Returns:
        The result as JSON, and the accuracy if the dataset has images of all classes of the version.

    Raises:
        ZooError: an object is missing, or its bytes have changed.
        PncError: the images cannot be used.
    """
    network, spec = load_version(zoo, version)
    known = set(spec.classes)
    classes = [name for name in dataset.classes if name in known]
    limit = _limit(spec, multiply_accumulates(network, spec))
    images = load_images(zoo, dataset, classes, [spec.geometry], max_images=limit)
    found = check(network, spec, images, max_macs=SEARCH_MACS)
    return result_of(found), _accuracy(found, spec, dataset)


def refuse_guessing(version: VersionRow, network: Network, images: ImageSet, dataset_id: str) -> None:
    """Check that a network of a job does not guess on the job's images of its classes.

    The network is refused only if the whole 95 % interval of its accuracy is near chance. Few images have a wide
    interval, so a weak network with few images is never refused.

    Args:
        version: The network's row.
        network: The network in eval mode, and its spec.
        images: The job's labelled images.
        dataset_id: Id of their dataset, for the advice.

    Raises:
        NearChance: the network guesses.
    """
    macs = multiply_accumulates(*network)
    most = int(min(JOB_IMAGES, JOB_MACS // max(1, macs)))
    score = measured(*network, images, most) if most >= checks.MIN_IMAGES else None
    if score is None or not score.is_near_chance(len(network[1].classes), CHANCE_TIMES):
        return
    raise NearChance(
        f"{version.ref}: expected a network that knows its classes, got an accuracy of {score} of this job, where "
        f"guessing has {100 / len(network[1].classes):.3g} %; find the mistake with `pnc models check {version.ref} "
        f"--dataset {dataset_id}`, or submit the job with `anyway` to run it as it is"
    )


def _limit(spec: NetworkSpec, macs: int) -> int:
    """Images that a check may load and run."""
    affordable = min(MEASURE_MACS // max(1, macs), MAX_BYTES // math.prod(spec.input_size), MAX_IMAGES)
    return max(1, int(affordable))


def _accuracy(found: Check, spec: NetworkSpec, dataset: DatasetRow) -> Accuracy | None:
    if any(not dataset.counts.get(name, 0) for name in spec.classes) or found.score.images < checks.MIN_IMAGES:
        return None
    return Accuracy(found.score.share, found.score.images, dataset.id)
