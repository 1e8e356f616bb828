"""The one place that imports torchvision, and timm, which imports it; and the preprocessing that both publish.

torchvision's wheel carries compiled operators that need CUDA libraries; beside a
CPU build of torch its import fails although classifiers and transforms need none
of them. Then, and only then, the two operators that are looked up at import time
are declared (without a kernel) and the import is tried again. Detection ops and
`torchvision.io` stay unusable there.
"""

import importlib
import math
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

from pnc_core.errors import ConfigError
from pnc_core.preprocessing import Preprocessing, ResizeRule

_TIMM_RULES: dict[str, ResizeRule] = {"center": "shorter-side", "squash": "squash"}
_keep_alive: list[torch.library.Library] = []
_SIGNATURES = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def torchvision_models() -> ModuleType:
    """`torchvision.models`, imported so that it also works beside a CPU build of torch."""
    return _import("torchvision.models")


def torchvision_datasets() -> ModuleType:
    """`torchvision.datasets`, likewise."""
    return _import("torchvision.datasets")


def timm_package() -> ModuleType | None:
    """`timm`, likewise; None if it is not installed."""
    torchvision_models()
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError:
        return None


def torchvision_preprocessing(preset: Any) -> dict[str, Any]:
    """Fields of a `NetworkSpec` that preprocess images as a torchvision classifier's own transforms do.

    Args:
        preset: What `weights.transforms()` returns, for example of `ResNet50_Weights.DEFAULT`.

    Returns:
        `input_size`, `mean`, `std` and `preprocessing`.
    """
    rule = Preprocessing(
        resize="shorter-side",
        resize_size=int(preset.resize_size[0]),
        interpolation=preset.interpolation.value,
        antialias=bool(preset.antialias),
    )
    side = int(preset.crop_size[0])
    return {"input_size": (3, side, side), "mean": preset.mean, "std": preset.std, "preprocessing": rule}


def timm_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `NetworkSpec` that preprocess images as timm's own transforms for evaluation do.

    Args:
        config: What `timm.data.resolve_data_config` returns.

    Returns:
        `input_size`, `mean`, `std` and `preprocessing`.

    Raises:
        ConfigError: the transforms add borders, or the input is not square.
    """
    _, height, width = config["input_size"]
    mode = config["crop_mode"]
    if mode not in _TIMM_RULES or height != width:
        raise ConfigError(
            f"timm: expected a square input and crop_mode {' or '.join(_TIMM_RULES)}, got {height} x {width} and {mode}"
        )
    rule = Preprocessing(
        resize=_TIMM_RULES[mode],
        resize_size=math.floor(height / config["crop_pct"]),
        interpolation=config["interpolation"],
    )
    return {**{name: tuple(config[name]) for name in ("input_size", "mean", "std")}, "preprocessing": rule}


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    _declare_operators()
    return importlib.import_module(name)


def _declare_operators() -> None:
    for name in [n for n in list(sys.modules) if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, signature in _SIGNATURES.items():
        library.define(name + signature)
    _keep_alive.append(library)
