"""Preprocessing equals that of torchvision and timm: pixels, tensors and logits."""

import importlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from app.datasets.images import decode_image
from pnc_core.config import NetworkSpec, geometries_of
from pnc_core.errors import ConfigError, DataError
from pnc_core.fitting import fit_image
from pnc_core.graph.architectures import build_network
from pnc_core.images import Views, fit, preprocess, to_pixels
from pnc_core.preprocessing import Geometry, Interpolation, Preprocessing
from pnc_core.vision import timm_package, timm_preprocessing, torchvision_models, torchvision_preprocessing

SIZES = [(300, 411), (411, 300), (180, 240), (224, 224), (700, 333)]
"""Width and height of the images: larger and smaller than the networks' input, and of their very size."""
PRESETS = [
    "ResNet50_Weights.IMAGENET1K_V1",
    "ResNet50_Weights.IMAGENET1K_V2",
    "EfficientNet_B0_Weights.IMAGENET1K_V1",
    "EfficientNet_V2_S_Weights.IMAGENET1K_V1",
    "ViT_B_16_Weights.IMAGENET1K_V1",
    "ViT_L_16_Weights.IMAGENET1K_SWAG_E2E_V1",
    "Swin_T_Weights.IMAGENET1K_V1",
    "Swin_V2_T_Weights.IMAGENET1K_V1",
    "Inception_V3_Weights.IMAGENET1K_V1",
    "MaxVit_T_Weights.IMAGENET1K_V1",
]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours with noise on them, so that a wrong filter and a wrong crop both show."""
    draw = np.random.default_rng(width * height)
    coarse = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = (smooth + draw.integers(-30, 31, smooth.shape)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def spec_of(fields: dict[str, Any], architecture: str = "cnn") -> NetworkSpec:
    return NetworkSpec(architecture=architecture, classes=("a", "b"), **fields)


def ours(image: Image.Image, spec: NetworkSpec) -> torch.Tensor:
    """From the bytes of a file to the input of the network, as jobs and serving do it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    (pixels,) = decode_image(file.getvalue(), [spec.geometry], "it")
    return preprocess(torch.from_numpy(pixels)[None], spec)


def small_network(spec: NetworkSpec) -> nn.Module:
    """Any network whose logits see all of the image."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PRESETS)
def test_logits_equal_those_behind_torchvisions_transforms(name: str, size: tuple[int, int]) -> None:
    kind, _, weights = name.partition(".")
    preset = getattr(torchvision_models(), kind)[weights].transforms()
    spec, image = spec_of(torchvision_preprocessing(preset)), picture(*size)
    wanted, found = preset(image)[None], ours(image, spec)
    assert torch.equal(found, wanted)
    network = small_network(spec)
    assert (network(found) - network(wanted)).abs().max() <= 1e-5


def test_every_preset_of_torchvision_can_be_said() -> None:
    models, image = torchvision_models(), picture(300, 411)
    seen = set()
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            preset = weights.transforms()
            spec = spec_of(torchvision_preprocessing(preset))
            rule = (spec.geometry, spec.mean, spec.std)
            if rule not in seen:
                seen.add(rule)
                assert torch.equal(ours(image, spec), preset(image)[None]), weights
    assert len(seen) >= 25


TIMM = [
    "resnet50.a1_in1k",
    "efficientnet_b0.ra_in1k",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "swin_tiny_patch4_window7_224.ms_in1k",
    "inception_v3.tv_in1k",
    "dm_nfnet_f0.dm_in1k",
    "vit_base_patch32_clip_384.openai_ft_in12k_in1k",
    "mobilenetv3_large_100.ra_in1k",
]


@pytest.mark.skipif(timm_package() is None, reason="timm is an extra")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TIMM)
def test_logits_equal_those_behind_timms_transforms(name: str, size: tuple[int, int]) -> None:
    models, data = (importlib.import_module(f"timm.{part}") for part in ("models", "data"))
    config = data.resolve_data_config(pretrained_cfg=models.get_pretrained_cfg(name).to_dict())
    spec, image = spec_of(timm_preprocessing(config)), picture(*size)
    wanted, found = data.create_transform(**config)(image)[None], ours(image, spec)
    assert (found - wanted).abs().max() <= 1e-6
    network = small_network(spec)
    assert (network(found) - network(wanted)).abs().max() <= 1e-5


@pytest.mark.parametrize("change", [{"crop_mode": "border"}, {"input_size": (3, 128, 256)}])
def test_transforms_of_timm_that_cannot_be_said_are_refused(change: dict[str, Any]) -> None:
    config = {"input_size": (3, 224, 224), "crop_mode": "center", "crop_pct": 0.9, "interpolation": "bicubic"}
    with pytest.raises(ConfigError, match="expected a square input and crop_mode"):
        timm_preprocessing({**config, "mean": (0.5,) * 3, "std": (0.5,) * 3, **change})


def test_blue_comes_first_and_pixels_stay_0_to_255() -> None:
    mean = (103.939, 116.779, 123.68)
    rule = Preprocessing(channel_order="bgr", value_range="0..255")
    spec = spec_of({"input_size": (3, 180, 240), "mean": mean, "std": (1, 1, 1), "preprocessing": rule})
    image = picture(240, 180)
    wanted = np.asarray(image)[..., ::-1].astype(np.float32) - np.array(mean, np.float32)
    assert np.abs(ours(image, spec)[0].numpy() - wanted.transpose(2, 0, 1)).max() <= 1e-4
    assert (to_pixels(ours(image, spec), spec)[0].numpy().transpose(1, 2, 0) - np.asarray(image)).max() <= 1e-4


def _geometries() -> Iterator[Any]:
    for how in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"):
        for antialias in (True, False) if how in ("nearest", "bilinear", "bicubic") else (True,):
            yield pytest.param(how, antialias, id=f"{how}-{antialias}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("how", "antialias"), [*_geometries()])
def test_tensors_are_fitted_to_the_pixels_of_the_files(
    how: Interpolation, antialias: bool, size: tuple[int, int]
) -> None:
    geometry = Geometry((3, 224, 224), "shorter-side", 256, how, antialias)
    image = picture(*size)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    assert np.array_equal(fit(tensor, geometry)[0].numpy(), fit_image(image, geometry))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_without_antialias_pixels_are_those_of_torch(how: Interpolation, size: tuple[int, int]) -> None:
    geometry = Geometry((3, 100, 90), interpolation=how, antialias=False)
    tensor = torch.from_numpy(np.array(picture(*size))).permute(2, 0, 1)[None]
    by_torch = nn.functional.interpolate(tensor.float(), (100, 90), mode=how, antialias=False)
    difference = (fit(tensor, geometry).float() - by_torch.round().clamp(0, 255)).abs()
    assert difference.max() <= 1  # both round, and sum in another order
    assert (difference > 0).float().mean() < 0.05  # most of them exact halves


@pytest.mark.parametrize("how", ["nearest", "bilinear", "bicubic"])
def test_torch_fits_float_pixels_nearly_as_pillow_does(how: Interpolation) -> None:
    geometry = Geometry((3, 224, 224), "shorter-side", 256, how)
    tensor = torch.from_numpy(np.array(picture(300, 411))).permute(2, 0, 1)[None]
    difference = (fit(tensor.float(), geometry) - fit(tensor, geometry).float()).abs()
    assert difference.mean() < 0.5  # Pillow rounds and clips between the two axes


def test_images_of_the_networks_size_are_taken_as_fitted() -> None:
    rule = Preprocessing(resize="shorter-side", resize_size=256)
    fields = {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    assert torch.equal(
        preprocess(images, spec_of({**fields, "preprocessing": rule})), preprocess(images, spec_of(fields))
    )


def test_each_network_sees_its_own_view_of_an_image() -> None:
    fields = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    small = spec_of({**fields, "input_size": (3, 32, 32)})
    large = spec_of({**fields, "input_size": (3, 64, 64)})
    image = picture(300, 411)
    file = io.BytesIO()
    image.save(file, "PNG")
    plain, other = decode_image(file.getvalue(), geometries_of([small, large, small]), "it")
    views = Views(torch.from_numpy(plain)[None], {large.geometry: torch.from_numpy(other)[None]})
    assert torch.equal(preprocess(views, small), ours(image, small))
    assert torch.equal(preprocess(views, large), ours(image, large))
    enlarged = preprocess(views.plain, large)
    assert (preprocess(views, large) - enlarged).abs().mean() > 0.1


def test_an_image_that_is_too_long_to_resize_is_refused() -> None:
    with pytest.raises(DataError, match="expected at most 67108864 pixels once its shorter side has 4096"):
        fit_image(Image.new("L", (40_000, 2)), Geometry((1, 224, 224), "shorter-side", 256 * 16))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": "stretch"}, "resize: expected one of"),
        ({"resize_size": 0}, "resize_size: expected an integer from 1 to 8192, or none, got 0"),
        ({"resize_size": True}, "resize_size: expected an integer"),
        ({"interpolation": "cubic"}, "interpolation: expected one of"),
        ({"interpolation": "lanczos", "antialias": False}, "without antialias"),
        ({"antialias": 1}, "antialias: expected true or false, got 1"),
        ({"channel_order": "grb"}, "channel_order: expected one of"),
        ({"value_range": "0..2"}, "value_range: expected one of"),
    ],
)
def test_preprocessing_out_of_its_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**fields)


@pytest.mark.parametrize(
    ("rule", "channels", "message"),
    [
        (Preprocessing(resize="shorter-side", resize_size=31), 3, "at least 32, the larger side of the input size"),
        (Preprocessing(channel_order="bgr"), 1, "rgb for a network without three channels"),
    ],
)
def test_preprocessing_that_does_not_fit_the_network_is_refused(
    rule: Preprocessing, channels: int, message: str
) -> None:
    fields = {"input_size": (channels, 32, 32), "mean": (0.5,) * channels, "std": (0.5,) * channels}
    with pytest.raises(ConfigError, match=message):
        spec_of({**fields, "preprocessing": rule})


@pytest.mark.parametrize(
    ("rule", "size", "line"),
    [
        (Preprocessing(), (3, 32, 32), "squash to 32 x 32, bilinear, RGB, 0..1"),
        (
            Preprocessing(resize="shorter-side", resize_size=256, interpolation="bicubic"),
            (3, 224, 224),
            "shorter side to 256, crop 224 x 224, bicubic, RGB, 0..1",
        ),
        (
            Preprocessing(resize_size=36, antialias=False, channel_order="bgr", value_range="0..255"),
            (3, 32, 32),
            "squash to 36 x 36, crop 32 x 32, bilinear, no antialias, BGR, 0..255",
        ),
    ],
)
def test_preprocessing_in_one_line(rule: Preprocessing, size: tuple[int, int, int], line: str) -> None:
    assert rule.describe(size) == line


def test_only_what_differs_from_the_defaults_is_written() -> None:
    fields = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    plain = spec_of(fields)
    assert "preprocessing" not in plain.to_dict()
    changed = spec_of({**fields, "preprocessing": Preprocessing(interpolation="bicubic")})
    assert changed.to_dict()["preprocessing"] == {"interpolation": "bicubic"}
    assert NetworkSpec(**changed.to_dict()) == changed


def test_equal_rules_have_equal_geometries() -> None:
    fields = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    rules = (Preprocessing(), Preprocessing(resize_size=32), Preprocessing(value_range="0..255"))
    assert len({spec_of({**fields, "preprocessing": rule}).geometry for rule in rules}) == 1
    one, two = Preprocessing(resize="shorter-side"), Preprocessing(resize="shorter-side", resize_size=32)
    assert spec_of({**fields, "preprocessing": one}).geometry == spec_of({**fields, "preprocessing": two}).geometry


def test_a_real_network_sees_the_preset() -> None:
    models = torchvision_models()
    preset = models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    spec = spec_of(torchvision_preprocessing(preset), "torchvision/resnet18")
    torch.manual_seed(0)
    network, image = build_network(spec).eval(), picture(300, 411)
    with torch.no_grad():
        assert (network(ours(image, spec)) - network(preset(image)[None])).abs().max() <= 1e-5
