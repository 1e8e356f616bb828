"""Narrow versions of torchvision's architectures, for tests that run many paths of the library with each."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pnc_core.config import NetworkSpec
from pnc_core.vision import torchvision_models

_models = torchvision_models()
SHRINK = 8
"""Factor by which ResNet-18's stages have fewer channels."""


class _Narrow(_models.resnet.ResNet):  # type: ignore[misc,name-defined]
    def _make_layer(self, block: type[nn.Module], planes: int, *args: Any, **kwargs: Any) -> nn.Module:
        made: nn.Module = super()._make_layer(block, planes // SHRINK, *args, **kwargs)
        return made


def _resnet18(spec: NetworkSpec) -> nn.Module:
    network = _Narrow(_models.resnet.BasicBlock, [2, 2, 2, 2])
    network.fc = nn.Linear(512 // SHRINK, len(spec.classes))
    return network


def _convnext(spec: NetworkSpec) -> nn.Module:
    stage = _models.convnext.CNBlockConfig
    stages = [stage(16, 32, 1), stage(32, 64, 2), stage(64, None, 1)]
    network: nn.Module = _models.ConvNeXt(stages, num_classes=len(spec.classes))
    return network


def _vit(spec: NetworkSpec) -> nn.Module:
    widths = {"patch_size": 8, "num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    network: nn.Module = _models.VisionTransformer(spec.input_size[1], num_classes=len(spec.classes), **widths)
    return network


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "slim/resnet18": _resnet18,
    "slim/convnext": _convnext,
    "slim/vit": _vit,
}
"""Architectures to add to `pnc_core.graph.architectures.architectures()`."""
