from dataclasses import replace

import pytest
import torch
from torch import nn

from pnc_core.cloning import clone
from pnc_core.composed import attach
from pnc_core.config import CloneConfig, Position
from pnc_core.data import ImageSet, preprocess
from pnc_core.errors import ConfigError
from pnc_core.evaluation import evaluate
from pnc_core.memory import _expected, _Moments, remembered_moments
from pnc_core.positions import trace
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

HEADS = ("auto", "affine", "router")
MIDDLE = Position(target="blocks.1", source="blocks.1")


def test_what_norms_remember_is_near_what_they_see_on_the_target_s_own_images(pair: Pair) -> None:
    traced = trace(*pair.target)
    memory = remembered_moments(traced)
    assert memory is not None
    norms = [m for m in pair.target[0].modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(memory) == sum(2 * m.num_features for m in norms)
    reader = _Moments(traced)
    with torch.no_grad():
        reader.run(preprocess(pair.images.only(pair.target[1].classes).images, pair.target[1]))
    seen = torch.cat(reader.found, dim=1).mean(0)
    assert float(torch.corrcoef(torch.stack([memory, seen]))[0, 1]) > 0.95


def test_a_network_without_batch_norms_remembers_nothing() -> None:
    assert remembered_moments(trace(*nets.network("torchvision/vit_b_16", 32))) is None


def test_expected_taps_follow_a_linear_law() -> None:
    moments, law = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)), torch.randn(6, 3)
    found = _expected(moments, (moments @ law).double(), torch.full((6,), 0.5))
    assert torch.allclose(found.float(), 0.5 * law.sum(0), atol=0.1)


def test_without_old_images_the_head_is_the_one_that_was_asked_for(pair: Pair) -> None:
    config = CloneConfig(classes=("9", "7"), preset="fast", old_images=False, position=MIDDLE, views=1)
    new = pair.images.only(("9", "7"))
    bundles = {head: clone(pair.target, pair.source, new, replace(config, head=head)) for head in HEADS}
    assert {head: bundle.manifest.head.kind for head, bundle in bundles.items()} == {
        "auto": "router",
        "affine": "affine",
        "router": "router",
    }
    assert evaluate(attach(pair.target[0], bundles["affine"]), pair.test).average > 0.5


def test_a_router_without_old_images_and_without_norms_is_refused_before_anything_is_tried(pair: Pair) -> None:
    target, source = (nets.network("torchvision/squeezenet1_1", 64, classes=names) for names in ("ab", "cd"))
    images = ImageSet(torch.zeros(6, 3, 64, 64, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64), ("c",))
    config = CloneConfig(classes=("c",), old_images=False, head="router")
    told: list[object] = []
    with pytest.raises(ConfigError, match=r"head: expected affine or auto .+ got 'router'"):
        clone(target, source, images, config, report=told.append)
    assert not told
