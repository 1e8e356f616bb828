from dataclasses import dataclass

import pytest
import torch

from pnc_core.config import Position
from pnc_core.images import ImageSet
from pnc_core.method.composing.compose import compose
from pnc_core.module.bundle import Bundle
from pnc_core.module.composition import Composition
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

MIDDLE = Position(target="blocks.1", source="blocks.1")
MOST = 40
"""Features of the sums: few, so that the images of one new class suffice for a step."""


def module(pair: Pair, name: str, offset: float = 0.0) -> Bundle:
    return nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, (name,), "router", offset=offset)


@dataclass(frozen=True)
class Set:
    bundles: list[Bundle]
    images: ImageSet
    """Images of the target's classes and of both modules."""


@pytest.fixture(scope="session")
def both(pair: Pair) -> Set:
    """A module whose logits are far too large, and a fair one."""
    bundles = [module(pair, "9", offset=30.0), module(pair, "7")]
    return Set(bundles, pair.images.only((*"01234", "9", "7")))


@pytest.fixture(scope="session")
def fitted(pair: Pair, both: Set) -> Composition:
    return compose(pair.target, both.bundles, both.images, sources=[pair.source] * 2)


@pytest.fixture(scope="session")
def first(pair: Pair, both: Set) -> Composition:
    """A ridge composition of the first module alone, without images of the second one's class."""
    return compose(pair.target, both.bundles[:1], both.images.only((*"01234", "9")), head="ridge", most_features=MOST)


@pytest.fixture(scope="session")
def step(pair: Pair) -> ImageSet:
    """Images of the second module's class only."""
    return pair.images.only(("7",))


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)
