"""The one place that imports torchvision, and timm, which imports it.

torchvision's wheel carries compiled operators that need CUDA libraries; beside a
CPU build of torch its import fails although classifiers and transforms need none
of them. Then, and only then, the two operators that are looked up at import time
are declared (without a kernel) and the import is tried again. Detection ops and
`torchvision.io` stay unusable there.
"""

import importlib
import sys
from types import ModuleType

import torch

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
