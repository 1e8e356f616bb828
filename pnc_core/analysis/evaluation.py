"""Evaluate a composed network: accuracy, locality, leak and cost.

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
from pnc_core.method.heads.fit import Accuracy, accuracy
from pnc_core.module.composed import Composed


@dataclass(frozen=True)
class Evaluation:
    """Figures of a composed network on test images, each 0..1; nan if the images for it are missing.

    Old images show classes of the target, new images show cloned classes.
    """

    target_old: float
    """Accuracy of the target alone on old images."""
    old: float
    """Accuracy on old images; all classes compete."""
    new: float
    """Accuracy on new images; all classes compete."""
    average: float
    """(old + new) / 2."""
    all: float
    """Accuracy on all images."""
    locality: float
    """Share of old images whose prediction equals the target's prediction."""
    leak: float
    """Share of old images whose prediction is a cloned class."""

    @property
    def harmonic(self) -> float:
        """2 old new / (old + new): near 0 if one of both accuracies is near 0, unlike `average`."""
        return 2 * self.old * self.new / (self.old + self.new) if self.old + self.new else 0.0


def evaluate(composed: Composed, images: ImageSet) -> Evaluation:
    """Evaluate a composed network on test images.

    Args:
        composed: Target with modules; not changed.
        images: Test images, labelled by class name; classes that the network lacks are ignored.

    Raises:
        DataError: no image shows a class of the network.
    """
    spec = composed.traced.spec
    used = images.only(composed.classes)
    if not len(used):
        raise DataError(f"images: expected some of {composed.classes}, got only images of {images.classes}")
    logits, alone = (predict(network, spec, used.views) for network in (composed, composed.target))
    return judge(logits, alone, used.labels)


def judge(logits: Tensor, alone: Tensor, labels: Tensor) -> Evaluation:
    """Compute the figures from logits.

    Args:
        logits: Logits (N, N_old + K) of the network to evaluate.
        alone: Logits (N, N_old) of the target alone.
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
    """Accuracy if old and new images were separated perfectly: only the classes of the image's own side compete.

    It bounds the accuracy of every routing. Oracle minus joint accuracy is the loss from confusing old and new images;
    1 minus oracle is the loss inside the networks. Own choice.

    Args:
        logits: Logits (N, N_old + K).
        labels: int64 (N,), old classes first.
        old_classes: N_old.

    Returns:
        Both accuracies; None for a side without images.
    """
    columns = torch.arange(logits.shape[1]) >= old_classes
    other_side = (labels >= old_classes)[:, None] != columns
    return accuracy(logits.masked_fill(other_side, -torch.inf), labels, old_classes)


def locality_gain(locality: float, fine_tuned: float) -> float:
    """Locality gain over fine-tuning: 1 - (1 - locality) / (1 - fine_tuned).

    The paper's abstract claims a gain of one half; the formula is our own reading of it.

    Args:
        locality: Locality of the composed network, 0..1.
        fine_tuned: Locality of a target that was fine-tuned for the same classes on the same images, 0..1.

    Returns:
        At most 1; negative if fine-tuning has the higher locality; nan if `fine_tuned` is 1.
    """
    return 1 - (1 - locality) / (1 - fine_tuned) if fine_tuned < 1 else nan


def direct_ensembles(
    target: tuple[nn.Module, NetworkSpec],
    source: tuple[nn.Module, NetworkSpec],
    classes: tuple[str, ...],
    images: ImageSet,
) -> dict[str, Evaluation]:
    """Evaluate baselines without cloning: target and whole source side by side.

    Args:
        target: The target and its spec.
        source: The whole source and its spec.
        classes: Classes of the source to add.
        images: Test images, labelled by class name.

    Returns:
        `raw`: the networks' logits compete. `softmax`: the networks' probabilities compete, each over all classes of
        its network; over a single class the probability would always be 1.
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
    """Multiply-accumulates per image, from torch's operation counter.

    Args:
        network: Target, or target with modules.
        spec: The target's spec.
        images: uint8 (N, C, H, W). The mean over these images; needed for strict locality, where a module runs on some
            images only. None: the cost of one black image.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    if images is None:
        return count_macs(lambda: network(torch.zeros(1, *spec.input_size, device=device)))
    return round(count_macs(lambda: predict(network, spec, images)) / len(images))


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
