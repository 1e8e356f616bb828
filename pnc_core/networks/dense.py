"""DenseNet-BC for small images.

References:
    Huang et al., "Densely Connected Convolutional Networks", CVPR 2017: table 1 (four blocks, here with a 3x3 layer of
    stride 1 in front) and section 4.1 (three blocks, L layers, growth k). Published code differs in the order of
    channels and in the activation of transitions, which are options here.
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from pnc_core.config import NetworkSpec
from pnc_core.networks.options import flag, whole
from pnc_core.networks.parts import Joined, classifier, conv, named

BLOCKS = {
    "densenet121": ((6, 12, 24, 16), 32), "densenet169": ((6, 12, 32, 32), 32), "densenet201": ((6, 12, 48, 32), 32),
    "densenet161": ((6, 12, 36, 24), 48), "densenet-bc100": ((16,) * 3, 12), "densenet-bc190": ((31,) * 3, 40),
    "densenet-bc250": ((41,) * 3, 24),
}  # fmt: skip
"""Layers of each block, and the growth."""


def densenet(
    blocks: Sequence[int],
    spec: NetworkSpec,
    *,
    growth: int,
    newest_first: bool = False,
    transition_relu: bool = True,
) -> nn.Module:
    """Blocks of bottleneck layers; transitions halve channels and grid.

    `growth`: channels that a layer makes. `newest_first`: they come in front of the layer's input.
    """
    k = whole("growth", growth)
    first, active = flag("newest_first", newest_first), flag("transition_relu", transition_relu)
    width = 2 * k
    parts: dict[str, nn.Module] = {"conv1": conv(spec.input_size[0], width)}
    for block, count in enumerate(blocks):
        layers = [Joined(_layer(width + k * i, k), newest_first=first) for i in range(count)]
        parts[f"dense{block + 1}"] = nn.Sequential(*layers)
        width += k * count
        if block + 1 < len(blocks):
            parts[f"trans{block + 1}"] = _transition(width, width // 2, active=active)
            width //= 2
    return named({**parts, "bn": nn.BatchNorm2d(width), "relu": nn.ReLU(), **classifier(width, len(spec.classes))})


def _layer(width: int, growth: int) -> dict[str, nn.Module]:
    return {
        "bn1": nn.BatchNorm2d(width), "relu1": nn.ReLU(), "conv1": conv(width, 4 * growth, 1),
        "bn2": nn.BatchNorm2d(4 * growth), "relu2": nn.ReLU(), "conv2": conv(4 * growth, growth),
    }  # fmt: skip


def _transition(before: int, after: int, *, active: bool) -> nn.Module:
    relu: dict[str, nn.Module] = {"relu": nn.ReLU()} if active else {}
    return named({"bn": nn.BatchNorm2d(before), **relu, "conv": conv(before, after, 1), "pool": nn.AvgPool2d(2)})


BUILDERS = {f"cifar/{name}": partial(densenet, blocks, growth=growth) for name, (blocks, growth) in BLOCKS.items()}
