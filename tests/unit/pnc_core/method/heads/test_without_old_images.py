from dataclasses import replace
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pnc_core.analysis.evaluation import evaluate
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import ConfigError
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet, preprocess
from pnc_core.method.clone import clone
from pnc_core.method.heads.fit import HeadInputs, head_logits
from pnc_core.method.heads.without_old_images import (
    _expected,
    _margin,
    _Moments,
    stored_moments,
    without_old_images,
)
from pnc_core.module.composed import attach
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

HEADS = ("auto", "affine", "router")
MIDDLE = Position(target="blocks.1", source="blocks.1")


def test_what_norms_remember_is_near_what_they_see_on_the_target_s_own_images(pair: Pair) -> None:
    traced = trace(*pair.target)
    memory = stored_moments(traced)
    assert memory is not None
    norms = [m for m in pair.target[0].modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(memory) == sum(2 * m.num_features for m in norms)
    reader = _Moments(traced)
    with torch.no_grad():
        reader.run(preprocess(pair.images.only(pair.target[1].classes).images, pair.target[1]))
    seen = torch.cat(reader.found, dim=1).mean(0)
    assert float(torch.corrcoef(torch.stack([memory, seen]))[0, 1]) > 0.95


def test_a_network_without_batch_norms_remembers_nothing() -> None:
    assert stored_moments(trace(*nets.network("torchvision/vit_b_16", 32))) is None


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
    pixels = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 64, 64).contiguous()
    images = ImageSet(pixels, torch.zeros(6, dtype=torch.int64), ("c",))
    config = CloneConfig(classes=("c",), old_images=False, head="router")
    told: list[object] = []
    with pytest.raises(ConfigError, match=r"head: expected affine or auto .+ got 'router'"):
        clone(target, source, images, config, report=told.append)
    assert not told


def _rows(old: list[float], own: list[float]) -> HeadInputs:
    """Logits of two classes per side; the second logit is always 0."""
    columns = (torch.stack([torch.tensor(side), torch.zeros(len(side))], dim=1) for side in (old, own))
    return HeadInputs(*columns, torch.zeros(len(old), 3), torch.full((len(old),), 2))


def test_by_the_logits_alone_as_many_new_images_are_given_up_as_have_an_old_class_for_the_surer_answer() -> None:
    sureness = torch.linspace(1, 4, 100).tolist()
    surer = [3.9 if i in range(40, 52) else 0.5 for i in range(100)]  # the target is surer for 12 of 100 images
    rows = _rows(surer, sureness)
    job = SimpleNamespace(config=CloneConfig(classes=("7", "8"), old_images=False, head="affine"), old_classes=2)
    for shift in (0, 30):  # a softmax does not depend on the shift
        shifted = replace(rows, old=rows.old + shift)
        logits = head_logits(without_old_images(job, shifted, shifted).head, shifted)
        assert int((logits.argmax(1) < 2).sum()) == 12


@pytest.mark.parametrize("count", [1, 2, 11, 101])
def test_no_held_out_image_is_on_the_threshold_between_old_and_new(count: int) -> None:
    """The limits of 3 % and 30 % are whole numbers of images for 11 and 101 images."""
    generator = torch.Generator().manual_seed(count)
    for surer in (0.0, 9.0):  # the target is surer for no image, or for all
        rows = _rows([surer] * count, (1 + 3 * torch.rand(count, generator=generator)).tolist())
        job = SimpleNamespace(config=CloneConfig(classes=("7", "8"), old_images=False, head="affine"), old_classes=2)
        head = without_old_images(job, rows, rows).head
        assert float(_margin(head, rows).abs().min()) > 4e-5


def test_a_router_without_old_images_finds_the_middle(pair: Pair) -> None:
    """One-sided routers have 0 for old or new classes. One pair of classes depends on the processor's rounding."""
    worse = []
    for classes in ("56", "58", "67", "69", "78", "89", "97"):
        asked = {"preset": "fast", "old_images": False, "position": MIDDLE, "views": 2, "inner_adapters": False}
        config = CloneConfig(classes=tuple(classes), **asked)
        bundle = clone(pair.target, pair.source, pair.images.only(config.classes), config)
        found = evaluate(attach(pair.target[0], bundle), pair.test)
        worse.append(min(found.old, found.new))
    assert median(worse) > 0.6


@pytest.mark.parametrize("classes", ["9", "56", "78", "97", "567", "56789"])
def test_behind_parallel_adapters_a_router_without_old_images_serves_any_classes(pair: Pair, classes: str) -> None:
    config = CloneConfig(classes=tuple(classes), preset="fast", old_images=False, position=MIDDLE, views=2)
    bundle = clone(pair.target, pair.source, pair.images.only(config.classes), config)
    found = evaluate(attach(pair.target[0], bundle), pair.test)
    assert found.average > 0.75
    assert min(found.old, found.new) > 0.6
