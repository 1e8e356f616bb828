import copy
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import build_network
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet, augment, preprocess
from pnc_core.method.clone import clone
from pnc_core.module.bundle import Bundle
from tests.unit.pnc_core import nets

torch.set_num_threads(1)


@dataclass(frozen=True)
class Pair:
    """A target trained on digits 0-4, and a source trained on digits 5-9."""

    target: nets.Network
    source: nets.Network
    images: ImageSet
    """Images of all ten classes for the job."""
    test: ImageSet


def _split_digits() -> tuple[ImageSet, ImageSet]:
    digits = load_digits()
    images = torch.as_tensor(digits.images * (255 / 16)).to(torch.uint8)[:, None]
    whole = ImageSet(images, torch.as_tensor(digits.target).long(), tuple("0123456789"))
    return whole.split(0.25, torch.Generator().manual_seed(0))


def _train(spec: NetworkSpec, images: ImageSet, epochs: int = 10, seed: int = 0, rate: float = 1e-2) -> nn.Module:
    torch.manual_seed(seed)
    network, own = build_network(spec).train(), images.only(spec.classes)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(network.parameters())
    # With a constant learning rate the final accuracy would depend on the processor's rounding.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(own) // 64))
    for _ in range(epochs):
        for index in torch.randperm(len(own), generator=generator).split(64):
            x = preprocess(augment(own.images[index], "shift", generator), spec)
            optimizer.zero_grad()
            F.cross_entropy(network(x), own.labels[index]).backward()
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()
    return network.eval()


@pytest.fixture(scope="session")
def pair() -> Pair:
    train, test = _split_digits()
    networks = []
    for classes in ("01234", "56789"):
        spec = nets.spec("cnn", 8, 1, classes, width=8)
        networks.append((_train(spec, train), spec))
    job_images, _ = train.split(0.7, torch.Generator().manual_seed(2))
    return Pair(networks[0], networks[1], job_images, test)


@pytest.fixture(scope="session")
def strangers() -> list[nn.Module]:
    """Two networks of the source's classes and architecture, trained from other initial weights."""
    spec, (train, _) = nets.spec("cnn", 8, 1, "56789", width=8), _split_digits()
    return [_train(spec, train, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="session")
def config() -> CloneConfig:
    return CloneConfig(classes=("9", "7"), epochs=4, shortlist=2, views=2, screen_images=200, batch_size=64, keep=0.4)


@pytest.fixture(scope="session")
def fingerprints(pair: Pair) -> tuple[str, str]:
    """Fingerprints of target and source before any test."""
    return fingerprint(pair.target[0]), fingerprint(pair.source[0])


@pytest.fixture(scope="session")
def cloned(pair: Pair, config: CloneConfig, fingerprints: tuple[str, str]) -> Bundle:
    """The bundle that `clone` makes of the classes 9 and 7."""
    return clone(pair.target, pair.source, pair.images, config)


@pytest.fixture
def by_hand(_by_hand: dict[str, Bundle]) -> dict[str, Bundle]:
    """Untrained modules with random heads, by kind of head; class 5 with affine, 6 with router, 8 with joint."""
    return copy.deepcopy(_by_hand)


@pytest.fixture(scope="session")
def _by_hand(pair: Pair) -> dict[str, Bundle]:
    position = Position(target="blocks.1", source="blocks.1")
    return {
        kind: nets.hand_made(pair.target, pair.source, pair.images, position, (name,), kind)
        for name, kind in (("5", "affine"), ("6", "router"), ("8", "joint"))
    }
