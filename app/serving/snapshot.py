"""An immutable thing to serve: one target with its modules, and what it is called.

A snapshot refers to its target and registers nothing on it, so that leaving a
snapshot is exact: the next one starts from the very same target.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import nn

from app.api.wire.deployments import ClassScore
from app.zoo.deployments import DesiredDeployment, DesiredModule
from app.zoo.store import verified_file
from app.zoo.zoo import Zoo
from pnc_core.bundle import read_bundle
from pnc_core.composed import Composed, attach
from pnc_core.config import NetworkSpec
from pnc_core.data import preprocess
from pnc_core.errors import MismatchError, NetworkError
from pnc_core.identity import fingerprint
from pnc_core.networks import load_network


@dataclass(frozen=True)
class Snapshot:
    """A target with modules attached, at one generation of a deployment."""

    deployment: str
    generation: int
    version: str
    """For people: `name@number`."""
    fingerprint: str
    """Of the live target's tensors, taken anew when the snapshot was made."""
    spec: NetworkSpec
    network: nn.Module
    """The target itself, or the composed network."""
    modules: tuple[DesiredModule, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all logits."""
        return self.network.classes if isinstance(self.network, Composed) else self.spec.classes

    def answer(self, image: torch.Tensor) -> list[ClassScore]:
        """Classify one image, uint8 (C, H, W): all classes, the most likely first."""
        with torch.inference_mode():
            logits = self.network(preprocess(image[None], self.spec))[0]
        rows = zip(self.classes, logits.softmax(0).tolist(), logits.tolist(), strict=True)
        scores = [ClassScore(name=name, probability=p, logit=logit) for name, p, logit in rows]
        return sorted(scores, key=lambda score: -score.probability)


def load_target(zoo: Zoo, wanted: DesiredDeployment) -> nn.Module:
    """A deployment's target in eval mode.

    Raises:
        MismatchError: the stored weights are not those that were registered.
        PncError: the weights cannot be loaded.
    """
    with verified_file(zoo.store, wanted.weights_key, wanted.weights_digest) as path:
        network = load_network(wanted.spec, path).requires_grad_(False)
    _checked_fingerprint(wanted, network)
    return network


def _checked_fingerprint(wanted: DesiredDeployment, target: nn.Module) -> str:
    got = fingerprint(target)
    if got != wanted.fingerprint:
        raise MismatchError(f"{wanted.version}: expected weights with fingerprint {wanted.fingerprint}, got {got}")
    return got


def compose(zoo: Zoo, wanted: DesiredDeployment, target: nn.Module) -> Snapshot:
    """Attach all wanted modules to a target and try the result on blank images.

    Raises:
        ZooError: an object is gone, or its bytes have changed.
        PncError: a bundle is damaged or made for another target; the target is as it was.
    """
    network = target
    for module in wanted.modules:
        with verified_file(zoo.store, module.key, module.digest) as path:
            network = attach(network, read_bundle(path), spec=wanted.spec)
    snapshot = Snapshot(
        deployment=wanted.name,
        generation=wanted.generation,
        version=wanted.version,
        fingerprint=_checked_fingerprint(wanted, target),
        spec=wanted.spec,
        network=network,
        modules=wanted.modules,
    )
    _try_out(snapshot)
    return snapshot


def _try_out(snapshot: Snapshot) -> None:
    """Refuse a network that cannot answer or whose answer is no number."""
    for pixel in (0, 255):
        image = torch.full(snapshot.spec.input_size, pixel, dtype=torch.uint8)
        if not all(isfinite(score.logit) for score in snapshot.answer(image)):
            raise NetworkError(f"{snapshot.deployment}: expected finite logits of a blank image, got inf or nan")
