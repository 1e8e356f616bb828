"""MobileNetV2 and ShuffleNetV2 for small images: the published plans with fewer strides.

References:
    Sandler et al., "MobileNetV2", CVPR 2018, table 2; Ma et al., "ShuffleNet V2", ECCV 2018, table 5.
"""

from functools import partial
from numbers import Real
from typing import Literal, get_args

from torch import nn

from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError
from pnc_core.networks.options import choice
from pnc_core.networks.parts import Residual, classifier, conv, named
from pnc_core.vision import torchvision_models

Around = Literal["identity", "conv"]
"""Blocks of other channels and the same grid: without a shortcut, or with a 1x1 convolution in it."""
PLAN = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage."""
SHUFFLE = {
    "x0_5": (24, 48, 96, 192, 1024), "x1_0": (24, 116, 232, 464, 1024), "x1_5": (24, 176, 352, 704, 1024),
    "x2_0": (24, 244, 488, 976, 2048),
}  # fmt: skip
"""Channels of the first layer, of three stages and of the last layer."""


def mobilenetv2(spec: NetworkSpec, *, width: float = 1.0, shortcut: Around = "identity") -> nn.Module:
    """MobileNetV2 with a first layer of stride 1; `width` multiplies all channels.

    With `shortcut` "conv": ReLU in place of ReLU6, an expanding layer in the first block too, and `width` 1 alone.
    """
    if isinstance(width, bool) or not isinstance(width, Real) or not 0.05 <= width <= 8:
        raise ConfigError(f"options.width: expected a factor from 0.05 to 8, got {width!r}")
    if choice("shortcut", shortcut, get_args(Around)) == "conv":
        return _with_shortcuts(spec, float(width))
    plan = [list(stage) for stage in PLAN]
    network: nn.Module = torchvision_models().MobileNetV2(len(spec.classes), float(width), plan)
    first = network.get_submodule("features.0.0")
    network.get_submodule("features.0").register_module("0", conv(spec.input_size[0], int(first.out_channels)))
    return network


def _with_shortcuts(spec: NetworkSpec, width: float) -> nn.Module:
    def scaled(channels: int) -> int:
        return max(1, round(channels * width))

    before = scaled(32)
    parts: dict[str, nn.Module] = {
        "conv1": conv(spec.input_size[0], before), "bn1": nn.BatchNorm2d(before), "relu1": nn.ReLU(),
    }  # fmt: skip
    blocks = []
    for expansion, channels, count, stride in PLAN:
        for block in range(count):
            blocks.append(_expanded(before, scaled(channels), expansion, 1 if block else stride))
            before = scaled(channels)
    last = scaled(1280)
    parts |= {"layers": nn.Sequential(*blocks), "conv2": conv(before, last, 1), "bn2": nn.BatchNorm2d(last)}
    return named({**parts, "relu2": nn.ReLU(), **classifier(last, len(spec.classes))})


def _expanded(before: int, after: int, expansion: int, stride: int) -> nn.Module:
    inner = expansion * before
    path: dict[str, nn.Module] = {
        "conv1": conv(before, inner, 1), "bn1": nn.BatchNorm2d(inner), "relu1": nn.ReLU(),
        "conv2": conv(inner, inner, 3, stride, groups=inner), "bn2": nn.BatchNorm2d(inner), "relu2": nn.ReLU(),
        "conv3": conv(inner, after, 1), "bn3": nn.BatchNorm2d(after),
    }  # fmt: skip
    if stride > 1:
        return named(path)
    around = nn.Identity() if before == after else nn.Sequential(conv(before, after, 1), nn.BatchNorm2d(after))
    return Residual(path, around, last=nn.Identity())


def shufflenetv2(kind: str, spec: NetworkSpec) -> nn.Module:
    """ShuffleNetV2 with a first layer of stride 1 and without its max pooling."""
    network: nn.Module = torchvision_models().ShuffleNetV2([4, 8, 4], [*SHUFFLE[kind]], num_classes=len(spec.classes))
    network.get_submodule("conv1").register_module("0", conv(spec.input_size[0], SHUFFLE[kind][0]))
    network.maxpool = nn.Identity()
    return network


BUILDERS = {
    "cifar/mobilenetv2": mobilenetv2,
    **{f"cifar/shufflenetv2-{kind.replace('_', '.')}": partial(shufflenetv2, kind) for kind in SHUFFLE},
}
