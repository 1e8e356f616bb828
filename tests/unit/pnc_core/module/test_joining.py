"""Join networks of different kinds and sizes: maps with tokens, small images with larger ones."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

from app.serving.engine.parts import copied
from pnc_core.analysis.evaluation import evaluate
from pnc_core.analysis.evidence import verify_bundle
from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import architectures
from pnc_core.graph.positions import INPUT, trace
from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from pnc_core.method.clone import clone
from pnc_core.method.insert import stitch
from pnc_core.method.job import Job
from pnc_core.method.learn import _LocalLoss
from pnc_core.method.search import candidates
from pnc_core.module.adapter import Adapter
from pnc_core.module.bundle import read_bundle
from pnc_core.module.composed import attach, detach
from pnc_core.module.export import to_onnx, to_program
from pnc_core.module.head import seen_width
from pnc_core.module.tail import extract
from pnc_core.vision import torchvision_models
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair, _train

IMAGES = Position(target=INPUT, source=INPUT)
DOWN = Position(target="blocks.1", source="encoder.layers.encoder_layer_0")
UP = Position(target="encoder.layers.encoder_layer_0", source="blocks.1")


def _small(spec: NetworkSpec) -> nn.Module:
    """torchvision's own transformer, small enough to be trained in a test: 4 x 4 patches behind a class token."""
    return torchvision_models().VisionTransformer(
        image_size=spec.input_size[1], patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64,
        num_classes=len(spec.classes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def transformer(pair: Pair) -> Iterator[nets.Network]:
    """A transformer of 3 x 32 x 32 images, trained on digits 5-9; the pair's networks take 1 x 8 x 8 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures(), "small-vit", _small)
        spec = nets.spec("small-vit", 32, 3, "56789")
        yield _train(spec, pair.images, epochs=8, rate=3e-3), spec


def _job(target: nets.Network, source: nets.Network, pair: Pair, classes: tuple[str, ...] = ("9", "7")) -> Job:
    return nets.job(target, source, pair.images, CloneConfig(classes=classes, batch_size=64, views=1))


def test_patches_of_tokens_are_known(transformer: nets.Network) -> None:
    found = {p.name: (p.shape, p.patches, p.leading) for p in trace(*transformer).positions}
    assert found["permute"] == ((16, 32), (4, 4), 0)
    assert found["encoder.layers.encoder_layer_0"] == ((17, 32), (4, 4), 1)
    assert {patches for _, patches, _ in found.values()} == {None, (4, 4)}


def test_every_source_has_candidates_in_every_target(pair: Pair, transformer: nets.Network) -> None:
    for target, source, classes in ((pair.target, transformer, ("9",)), (transformer, pair.target, ("0",))):
        job = _job(target, source, pair, classes)
        found = candidates(job)
        assert found[0] == IMAGES
        assert len(set(found)) == len(found) > 5
        gaps = [abs(job.target.position(p.target).depth - job.source.position(p.source).depth) for p in found[1:]]
        assert gaps == sorted(gaps)


def test_a_module_at_the_inputs_takes_the_image_that_the_source_takes(pair: Pair, transformer: nets.Network) -> None:
    job = _job(pair.target, transformer, pair)
    insertion = stitch(job, IMAGES, job.train)
    batch = next(job.read(job.train))
    with torch.no_grad():
        assert torch.equal(insertion.adapter(batch.phi(IMAGES, insertion.adapter)), batch.source[INPUT])
        assert torch.allclose(insertion.forward(batch)[0], batch.own, atol=1e-3)


@pytest.mark.parametrize("position", [DOWN, IMAGES, Position(target="blocks.1", source="permute")])
def test_masking_equals_removing_behind_such_an_adapter(
    pair: Pair, transformer: nets.Network, position: Position
) -> None:
    job = _job(pair.target, transformer, pair)
    insertion = stitch(job, position, job.train)
    kept = nets.some_channels(insertion.tail)
    phi = insertion.adapter(next(job.read(job.train)).phi(position, insertion.adapter)).detach()
    removed, _ = extract(insertion.tail, kept).forward(phi)
    insertion.tail.mask(kept)
    masked, _ = insertion.tail.forward(phi)
    assert torch.allclose(masked, removed, atol=1e-5)


@pytest.mark.parametrize("position", [DOWN, IMAGES])
def test_a_module_of_another_kind_goes_in_and_out(
    pair: Pair, transformer: nets.Network, position: Position, tmp_path: Path
) -> None:
    target, spec = pair.target
    before = fingerprint(target)
    bundle = nets.hand_made(pair.target, transformer, pair.images, position, ("9", "7"), "router", inner=True)
    assert bundle.manifest.adapter_resize == ("image" if position == IMAGES else "cells")
    x = preprocess(pair.test.images[:5], spec)
    wanted = attach(target, bundle)(x)
    for payload in ("full", "thin"):
        bundle.payload(payload).write(tmp_path / payload)
        loaded = read_bundle(tmp_path / payload)
        composed = attach(target, loaded, transformer[0])
        assert torch.equal(composed(x), wanted)
        assert verify_bundle(loaded, transformer[0]) is not None
    assert detach(composed) is target
    assert fingerprint(target) == before


@pytest.mark.parametrize("position", [DOWN, IMAGES])
def test_a_copy_made_for_serving_answers_the_same(pair: Pair, transformer: nets.Network, position: Position) -> None:
    composed = attach(pair.target[0], nets.hand_made(pair.target, transformer, pair.images, position, ("9", "7")))
    (module,) = composed.attached
    phi = torch.randn(3, *module.adapter.shape, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(3, seen_width(composed.traced, 1))
    wanted = module(phi, seen)[1]
    assert torch.allclose(copied(module, torch.float32)(phi, seen)[1], wanted, atol=1e-4)
    coarse = copied(module, torch.bfloat16)(phi.bfloat16(), seen)[1]
    assert torch.allclose(coarse, wanted, atol=0.1 * float(wanted.abs().max()))


def test_tokens_behind_a_map_are_exported(pair: Pair, transformer: nets.Network) -> None:
    composed = attach(pair.target[0], nets.hand_made(pair.target, transformer, pair.images, DOWN, ("9", "7")))
    x = preprocess(pair.test.images[:3], pair.target[1])
    with torch.no_grad():
        assert torch.allclose(to_program(composed, pair.target[1]).module()(x), composed(x), atol=1e-4)


def test_resized_images_are_exported(pair: Pair, tmp_path: Path) -> None:
    larger = nets.network("cnn", 12, 3, "56789", width=4)
    composed = attach(pair.target[0], nets.hand_made(pair.target, larger, pair.images, IMAGES, ("9", "7")))
    to_onnx(composed, pair.target[1], tmp_path / "composed.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "composed.onnx"), providers=["CPUExecutionProvider"])
    x = preprocess(pair.test.images[:3], pair.target[1])
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(session.run(None, {"images": x.numpy()})[0]), composed(x), atol=1e-4)


def test_fast_clones_between_kinds_are_better_than_chance(pair: Pair, transformer: nets.Network) -> None:
    images = pair.images.sample(300, torch.Generator().manual_seed(0))
    for target, source, position, new in (
        (pair.target, transformer, DOWN, ("9", "7")),
        (transformer, pair.target, UP, ("1", "0")),
    ):
        given: dict[str, Any] = {"head": "router", "views": 1, "max_size": 2, "batch_size": 64, "keep_anyway": True}
        config = CloneConfig(classes=new, preset="fast", position=position, **given)
        found = evaluate(attach(target[0], clone(target, source, images, config)), pair.test)
        assert found.old > 0.9 * found.target_old
        assert found.new > 0.4  # chance is 1 / 7


def test_local_behaviour_is_compared_only_where_cells_lie_at_the_same_places(
    pair: Pair, transformer: nets.Network
) -> None:
    job, position = _job(pair.target, transformer, pair), Position(target="blocks.0", source=DOWN.source)
    insertion = stitch(job, position, job.train)
    for patches, same in (((4, 4), True), ((2, 8), False)):
        source = dataclasses.replace(job.source.position(position.source), patches=patches)
        adapter = Adapter(job.target.position(position.target), source, relu=False)
        loss = _LocalLoss(job, dataclasses.replace(insertion, adapter=adapter))(next(job.read(job.train)))
        assert (float(loss.detach()) > 0) is same
