"""One image file, and each network sees it in its own size: a source of 64 pixels behind a target of 32."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from PIL import Image

from pnc_core.config import NetworkSpec, Position
from pnc_core.images import ImageSet, Views, preprocess, views_of
from pnc_core.module.composed import attach
from pnc_core.preprocessing import Preprocessing
from tests.unit import seeds
from tests.unit.pnc_core import nets
from tests.unit.serving import world
from tests.unit.serving.world import NAME, World

INPUTS = Position(target="input", source="input")
CLASSES = ("6", "7")


def _network(spec: NetworkSpec, seed: int) -> nets.Network:
    torch.manual_seed(seed)
    return nets.randomised(nets.build_network(spec), seed).eval().requires_grad_(False), spec


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    rule = Preprocessing(
        resize="shorter-side", resize_size=72, interpolation="bicubic", channel_order="bgr", value_range="0..255"
    )
    target = _network(nets.spec("cnn", 32, 3, "012", width=8), 1)
    scaled = replace(nets.spec("cnn", 64, 3, "567", width=8), preprocessing=rule, mean=(104.0,) * 3, std=(60.0,) * 3)
    source = _network(scaled, 2)
    source[0].fc.weight.mul_(30)  # so that logits depend clearly on the image
    pixels = torch.randint(0, 256, (60, 3, 80, 100), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(60) % 6, tuple("012567"))
    bundle = nets.hand_made(target, source, images, INPUTS, CLASSES)
    assert bundle.manifest.adapter_resize == "image"
    made = world.registered(seeds.new_zoo(tmp_path_factory.mktemp("views")), target, source, (bundle,))
    made.want(made.modules)
    return made


@pytest.fixture(scope="module")
def url(here: World) -> Iterator[str]:
    with world.serving(here.zoo.settings) as (url, _):
        yield url


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (41, 30, 3), np.uint8)
    return Image.fromarray(pixels).resize((300, 411), Image.Resampling.BICUBIC)


def _wanted(here: World, images: Views) -> torch.Tensor:
    with torch.no_grad():
        return attach(here.target[0], here.bundles[0]).logits(images)


def test_a_served_module_sees_the_original_image_in_the_sources_size(
    here: World, url: str, image: Image.Image, tmp_path: Path
) -> None:
    file = io.BytesIO()
    image.save(file, "PNG")
    answer = httpx.post(f"http://{url}/v1/deployments/{NAME}/predict", content=file.getvalue())
    assert answer.status_code == 200
    found = {score["name"]: score["logit"] for score in answer.json()["classes"]}
    composed = attach(here.target[0], here.bundles[0])
    assert [spec.input_size for spec in composed.sees] == [(3, 32, 32), (3, 64, 64)]
    views = views_of(image, composed.sees)
    wanted = _wanted(here, views)[0].tolist()
    assert [found[name] for name in ("0", "1", "2", *CLASSES)] == pytest.approx(wanted, abs=1e-4)
    # The module's own logits, by hand from 64 pixels of the original image.
    fitted = image.resize((72, int(72 * 411 / 300)), Image.Resampling.BICUBIC)
    top = round((fitted.height - 64) / 2)
    pixels = np.asarray(fitted)[top : top + 64, 4:68, ::-1].astype(np.float32)
    x = torch.from_numpy((pixels - 104) / 60).permute(2, 0, 1)[None]
    entered = composed.entered(views)
    assert [torch.allclose(x, one, atol=1e-5) for one in entered.values()] == [True]
    enlarged = _wanted(here, Views(views.plain))[0].tolist()
    assert max(abs(a - b) for a, b in zip(enlarged[3:], wanted[3:], strict=True)) > 1e-2


@pytest.mark.parametrize("kind", ["UINT8", "FP32"])
def test_tensors_of_the_targets_size_are_taken_for_the_image(here: World, url: str, kind: str) -> None:
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    client = triton.InferenceServerClient(url)
    tensor = triton.InferInput("images" if kind == "UINT8" else "preprocessed", [3, 3, 32, 32], kind)
    tensor.set_data_from_numpy((images if kind == "UINT8" else preprocess(images, here.target[1])).numpy())
    found = client.infer(NAME, [tensor]).as_numpy("logits")
    client.close()
    with torch.no_grad():
        floats = attach(here.target[0], here.bundles[0])(preprocess(images, here.target[1]))
    wanted = _wanted(here, Views(images)) if kind == "UINT8" else floats
    assert np.allclose(found, wanted.numpy(), atol=1e-4)


def test_the_target_alone_is_not_touched_by_the_modules_view(here: World, url: str, image: Image.Image) -> None:
    file = io.BytesIO()
    image.save(file, "PNG")
    answer = httpx.post(f"http://{url}/v1/deployments/{NAME}/predict?modules=", content=file.getvalue())
    found = {score["name"]: score["logit"] for score in answer.json()["classes"]}
    with torch.no_grad():
        wanted = here.target[0](preprocess(views_of(image, [here.target[1]]), here.target[1]))[0].tolist()
    assert [found[name] for name in "012"] == pytest.approx(wanted, abs=1e-4)
