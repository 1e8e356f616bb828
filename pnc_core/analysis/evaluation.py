"""How good is a composed network? Accuracy, locality, leak, cost.

Source: the paper's introduction (accuracy and locality); leak, the oracle and the direct
ensembles are our own choice.
"""

from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.errors import DataError
from pnc_core.graph.cost import count_macs
from pnc_core.images import EVALUATION_BATCH, ImageSet, Views, batches, preprocess
from pnc_core.method.fit_head import Accuracy, accuracy
from pnc_core.module.composed import Composed


@dataclass(frozen=True)
class Evaluation:
    """Logits over old and new classes on test images; all shares 0..1, nan where a side has no image."""

    target_old: float
    """The target alone, on its own classes."""
    old: float
    """On the old classes, all classes competing."""
    new: float
    """The same on the cloned classes."""
    average: float
    """Mean of `old` and `new`."""
    all: float
    """All images alike."""
    locality: float
    """Old images whose prediction is the target's own."""
    leak: float
    """Old images that are sent to a cloned class."""

    @property
    def harmonic(self) -> float:
        """Harmonic mean of `old` and `new`: near 0 as soon as one side is lost, which the average hides."""
        return 2 * self.old * self.new / (self.old + self.new) if self.old + self.new else 0.0


def evaluate(composed: Composed, images: ImageSet) -> Evaluation:
    """Judge a composed network on images it has not seen.

    Args:
        composed: Target with modules; not changed.
        images: Labelled by class name; classes the network lacks are left out.

    Raises:
        DataError: no image is of a class that the network has.
    """
    spec = composed.traced.spec
    used = images.only(composed.classes)
    if not len(used):
        raise DataError(f"images: expected some of {composed.classes}, got none, but of {images.classes}")
    logits, alone = (predict(network, spec, used.views) for network in (composed, composed.target))
    return judge(logits, alone, used.labels)


def judge(logits: Tensor, alone: Tensor, labels: Tensor) -> Evaluation:
    """Compare logits with the labels and with the target's own.

    Args:
        logits: (N, N_old + K) of whatever is judged.
        alone: (N, N_old) of the target alone.
        labels: int64 (N,), old classes first.
    """
    old = alone.shape[1]
    score, is_old = accuracy(logits, labels, old), labels < old
    before, after = alone[is_old].argmax(1), logits[is_old].argmax(1)
    return Evaluation(
        target_old=_share(before == labels[is_old]),
        old=nan if score.old is None else score.old,
        new=nan if score.new is None else score.new,
        average=score.average,
        all=_share(logits.argmax(1) == labels),
        locality=_share(before == after),
        leak=_share(after >= old),
    )


def oracle(logits: Tensor, labels: Tensor, old_classes: int) -> Accuracy:
    """The ceiling of any routing: every image is sent to the right side, and only classes of that side compete.

    What lies between it and the joint accuracy is lost in telling old from new, what lies above it
    is lost inside the networks. Own choice.

    Args:
        logits: (N, N_old + K).
        labels: int64 (N,), old classes first.
        old_classes: N_old.

    Returns:
        Both accuracies, None where a side has no image.
    """
    columns = torch.arange(logits.shape[1]) >= old_classes
    other_side = (labels >= old_classes)[:, None] != columns
    return accuracy(logits.masked_fill(other_side, -torch.inf), labels, old_classes)


def locality_gain(locality: float, fine_tuned: float) -> float:
    """How much less is disturbed than by fine-tuning: 1 - (1 - locality) / (1 - fine_tuned).

    The paper's abstract claims a gain of one half; the formula is our own reading of it.

    Args:
        locality: Of the composed network, 0..1.
        fine_tuned: Of a target whose weights were trained for the same classes instead, on the same images.

    Returns:
        At most 1; negative where fine-tuning disturbs less; nan where it disturbs nothing.
    """
    return 1 - (1 - locality) / (1 - fine_tuned) if fine_tuned < 1 else nan


def direct_ensembles(
    target: tuple[nn.Module, NetworkSpec],
    source: tuple[nn.Module, NetworkSpec],
    classes: tuple[str, ...],
    images: ImageSet,
) -> dict[str, Evaluation]:
    """The rivals that need no cloning: both whole networks side by side.

    Args:
        target: Network and spec.
        source: Network and spec; it is run as a whole.
        classes: The source's classes that are added.
        images: Labelled by class name.

    Returns:
        `raw`: logits compete; `softmax`: each network's probabilities among all the classes that it has, since among
        `classes` alone a single one would always be certain.
    """
    used = images.only((*target[1].classes, *classes))
    rows = [source[1].classes.index(name) for name in classes]
    alone, whole = predict(*target, used.views), predict(*source, used.views)
    kinds = {"raw": (alone, whole[:, rows]), "softmax": (alone.softmax(1), whole.softmax(1)[:, rows])}
    return {kind: judge(torch.cat(sides, dim=1), alone, used.labels) for kind, sides in kinds.items()}


def predict(network: nn.Module, spec: NetworkSpec, images: Tensor | Views) -> Tensor:
    """Logits (N, classes) of uint8 images (N, C, H, W) or of views of them, on the CPU."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))

    def logits(part: Tensor | Views) -> Tensor:
        if isinstance(network, Composed):
            return network.logits(part)
        return network(preprocess(part, spec, device))  # type: ignore[no-any-return]

    with torch.inference_mode():
        return torch.cat([logits(images[i]).cpu() for i in batches(len(images), EVALUATION_BATCH)])


def multiply_accumulates(network: nn.Module, spec: NetworkSpec, images: Tensor | None = None) -> int:
    """Multiply-accumulates of one image, as torch's own counter sees them.

    Args:
        network: Target, or target with modules.
        spec: Its spec.
        images: uint8 (N, C, H, W). Where a locality gate decides whether a module is run, the mean over these; without
            them the answer is for a blank image.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    if images is None:
        return count_macs(lambda: network(torch.zeros(1, *spec.input_size, device=device)))
    return round(count_macs(lambda: predict(network, spec, images)) / len(images))


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
