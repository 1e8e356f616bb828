"""Residual networks for small images: a 3x3 convolution, three or four stages of blocks, a linear classifier.

References:
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016: section 4.2 (three stages) and table 1 (four
    stages, here with a 3x3 first layer of stride 1).
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from pnc_core.config import NetworkSpec
from pnc_core.networks.options import choice, flag, whole
from pnc_core.networks.parts import SHORTCUTS, Residual, Shortcut, classifier, conv, named, shortcut

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage, by the number of layers of a network with four stages."""
DEPTHS = (20, 32, 44, 56, 110, 1202)
"""Layers of the networks with three stages: 6n + 2, n blocks a stage."""
BOTTLENECK = 50
"""From this many layers on, blocks have three convolutions, and four times as many channels outside as inside."""


def three_stages(depth: int, spec: NetworkSpec, *, width: int = 16, shortcut: Shortcut = "pad-both") -> nn.Module:
    """ResNet-20 and its relatives: stages of `width`, 2 `width` and 4 `width` channels."""
    return _network(spec, [(depth - 2) // 6] * 3, width, shortcut, bottleneck=False)


def four_stages(
    depth: int, spec: NetworkSpec, *, width: int = 64, shortcut: Shortcut = "conv", stem_pool: bool = False
) -> nn.Module:
    """ResNet-18 and its relatives; with `stem_pool` 3x3 max pooling of stride 2 follows the first layer."""
    pooled = flag("stem_pool", stem_pool)
    return _network(spec, STAGES[depth], width, shortcut, bottleneck=depth >= BOTTLENECK, stem_pool=pooled)


BUILDERS = {
    **{f"cifar/resnet{depth}": partial(three_stages, depth) for depth in DEPTHS},
    **{f"cifar/resnet{depth}": partial(four_stages, depth) for depth in STAGES},
}


def _network(
    spec: NetworkSpec, counts: Sequence[int], width: int, kind: Shortcut, *, bottleneck: bool, stem_pool: bool = False
) -> nn.Module:
    width, kind = whole("width", width), choice("shortcut", kind, SHORTCUTS)
    before, grown = width, 4 if bottleneck else 1
    parts: dict[str, nn.Module] = {
        "conv1": conv(spec.input_size[0], width), "bn1": nn.BatchNorm2d(width), "relu1": nn.ReLU(),
    }  # fmt: skip
    if stem_pool:
        parts["pool1"] = nn.MaxPool2d(3, 2, 1)
    for stage, count in enumerate(counts):
        inner, blocks = width * 2**stage, []
        for block in range(count):
            stride = 2 if stage and not block else 1
            path = _bottleneck(before, inner, stride) if bottleneck else _basic(before, inner, stride)
            around = shortcut(before, grown * inner, stride, kind)
            blocks.append(Residual(path, around, last=nn.ReLU()))
            before = grown * inner
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return named(parts | classifier(before, len(spec.classes)))


def _basic(before: int, after: int, stride: int) -> dict[str, nn.Module]:
    return {
        "conv1": conv(before, after, 3, stride), "bn1": nn.BatchNorm2d(after), "relu1": nn.ReLU(),
        "conv2": conv(after, after), "bn2": nn.BatchNorm2d(after),
    }  # fmt: skip


def _bottleneck(before: int, inner: int, stride: int) -> dict[str, nn.Module]:
    return {
        "conv1": conv(before, inner, 1), "bn1": nn.BatchNorm2d(inner), "relu1": nn.ReLU(),
        "conv2": conv(inner, inner, 3, stride), "bn2": nn.BatchNorm2d(inner), "relu2": nn.ReLU(),
        "conv3": conv(inner, 4 * inner, 1), "bn3": nn.BatchNorm2d(4 * inner),
    }  # fmt: skip
