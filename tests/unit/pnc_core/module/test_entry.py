"""Modules that take the image itself: each network sees it as its own preprocessing says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pnc_core.analysis.evaluation import predict
from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.errors import BundleError
from pnc_core.images import ImageSet, Views, preprocess, views_of
from pnc_core.method.clone import clone
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.composed import attach
from pnc_core.module.entry import entry_of, from_target
from pnc_core.module.export import to_program
from pnc_core.preprocessing import Preprocessing
from tests.unit.pnc_core import nets

INPUTS = Position(target="input", source="input")
RULE = Preprocessing(resize="shorter-side", resize_size=18, interpolation="bicubic")


def _network(spec: NetworkSpec, seed: int) -> nets.Network:
    torch.manual_seed(seed)
    return nets.randomised(nets.build_network(spec), seed).eval().requires_grad_(False), spec


@pytest.fixture(scope="module")
def networks() -> tuple[nets.Network, nets.Network]:
    """A target of 8 pixels, and a source of 16 pixels with a preprocessing of its own."""
    target = _network(nets.spec("cnn", 8, 3, "abc", width=8), 1)
    return target, _network(replace(nets.spec("cnn", 16, 3, "def", width=8), preprocessing=RULE), 2)


@pytest.fixture(scope="module")
def images(networks: tuple[nets.Network, nets.Network]) -> ImageSet:
    """As a job has them: the target's pixels, and the source's beside them."""
    specs = [spec for _, spec in networks]
    draw = np.random.default_rng(0)
    files = [Image.fromarray(draw.integers(0, 256, (24, 40, 3), np.uint8)) for _ in range(60)]
    views = Views.cat([views_of(file, specs) for file in files])
    return ImageSet(views.plain, torch.arange(60) % 6, tuple("abcdef"), views.fitted)


@pytest.fixture(scope="module")
def bundle(networks: tuple[nets.Network, nets.Network], images: ImageSet) -> Bundle:
    config = CloneConfig(classes=("d", "e"), preset="fast", position=INPUTS, keep=1.0, max_size=2.0, views=1)
    return clone(*networks, images, config)


def test_a_job_gives_each_network_its_own_pixels(networks: tuple[nets.Network, nets.Network], images: ImageSet) -> None:
    job = nets.job(*networks, images, CloneConfig(classes=("d", "e"), batch_size=16))
    batch = next(job.read(job.train))
    source = networks[1][1]
    assert batch.source["input"].shape[1:] == (3, 16, 16)
    assert torch.allclose(batch.source["input"], preprocess(job.train.fitted[source.geometry][:16], source))


def test_the_manifest_says_that_the_module_takes_the_image(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "bundle")
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert manifest == bundle.manifest
    assert manifest.adapter_resize == "image"
    assert manifest.source.preprocessing == RULE
    assert "preprocessing" not in manifest.to_dict()["target"]


def test_module_logits_are_those_of_the_sources_own_view(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle
) -> None:
    (target, spec), (source, other) = networks
    composed = attach(target, bundle)
    found = predict(composed, spec, images.views)
    (module,) = composed.attached
    x = preprocess(images.fitted[other.geometry], other)
    with torch.no_grad():
        by_hand = composed(preprocess(images.images, spec), {entry_of(module.manifest): x})
        own = module.part(module.adapter(x))[0]
    assert torch.allclose(found, by_hand, atol=1e-5)
    # `keep` is 1: the module's logits are nearly the source's, which the wrong pixels would not give.
    with torch.no_grad():
        wanted, enlarged = source(x)[:, :2], source(preprocess(images.images, other))[:, :2]
    assert (own - wanted).abs().mean() < 0.5 * (enlarged - wanted).abs().mean()


def test_without_the_image_the_targets_input_is_taken_for_it(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle
) -> None:
    (target, spec), (_, other) = networks
    x = preprocess(images.images, spec)
    assert torch.allclose(from_target(x, spec, other), preprocess(images.images.float(), other), atol=1e-5)
    lanczos = replace(other, preprocessing=replace(RULE, interpolation="lanczos"))
    assert torch.allclose(from_target(x, spec, lanczos), preprocess(images.images, lanczos), atol=1e-5)
    composed = attach(target, bundle)
    with torch.no_grad():
        pixels, floats = composed.logits(images.images), composed(x)
    assert (pixels - floats).abs().mean() < 0.05 * pixels.std()  # Pillow rounds between the two axes, torch does not


@pytest.mark.parametrize("pixels", [True, False])
def test_such_a_module_is_exported(
    networks: tuple[nets.Network, nets.Network], images: ImageSet, bundle: Bundle, pixels: bool
) -> None:
    target, spec = networks[0]
    composed = attach(target, bundle)
    given = images.images[:4] if pixels else preprocess(images.images[:4], spec)
    with torch.no_grad():
        wanted = composed(preprocess(images.images[:4], spec))
        found = to_program(composed, spec, pixels=pixels).module()(given)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_a_manifest_takes_the_image_at_the_inputs_alone(
    networks: tuple[nets.Network, nets.Network], bundle: Bundle
) -> None:
    elsewhere = Position(target="blocks.1", source="input")
    odd = replace(bundle, manifest=replace(bundle.manifest, position=elsewhere))
    with pytest.raises(BundleError, match="expected 'image' at input->input alone"):
        attach(networks[0][0], odd)
