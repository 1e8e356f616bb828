"""Networks for small images without residual stages: VGG with batch norm, and RepVGG.

References:
    Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015 (table 1); Ding et al., "RepVGG", CVPR 2021,
    with strides for 32x32 images.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.networks.options import flag, whole
from pnc_core.networks.parts import classifier, conv, named

VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage."""
REPVGG = {"a0": (0.75, 2.5), "a1": (1.0, 2.5), "a2": (1.5, 2.75)}
"""Channels of the first three stages and of the last one, as factors."""


def vgg(depth: int, spec: NetworkSpec, *, width: int = 64, hidden: int = 0) -> nn.Module:
    """VGG with batch norm; `hidden`: features of two more linear layers, 0 for a single one."""
    first, inner = whole("width", width), whole("hidden", hidden, 0, 65536)
    before, layers = spec.input_size[0], list[nn.Module]()
    for stage, count in enumerate(VGG[depth]):
        after = first * min(2**stage, 8)
        for _ in range(count):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2))
    parts = {"features": nn.Sequential(*layers), "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return named({**parts, "classifier": _classifier(before, inner, len(spec.classes))})


def _classifier(features: int, hidden: int, classes: int) -> nn.Module:
    if not hidden:
        return nn.Linear(features, classes)
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


class Branches(nn.Module):
    """Batch norm of the input, a 3x3 and a 1x1 convolution, added up and activated."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.identity = nn.BatchNorm2d(before) if stride == 1 and before == after else None
        self.dense = named({"conv": conv(before, after, 3, stride), "bn": nn.BatchNorm2d(after)})
        self.point = named({"conv": conv(before, after, 1, stride), "bn": nn.BatchNorm2d(after)})
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.dense(x) + self.point(x)
        return self.relu(y if self.identity is None else y + self.identity(x))  # type: ignore[no-any-return]


def repvgg(kind: str, spec: NetworkSpec, *, width: int = 64, fused: bool = False) -> nn.Module:
    """RepVGG with its branches as trained, or `fused` into one 3x3 convolution each."""
    base, single = whole("width", width), flag("fused", fused)
    factor, last = REPVGG[kind]
    widths = [int(base * factor), int(2 * base * factor), int(4 * base * factor), int(8 * base * last)]
    before = spec.input_size[0]
    parts: dict[str, nn.Module] = {"stage0": _block(before, stem := min(base, int(base * factor)), 1, fused=single)}
    before = stem
    for stage, (count, after) in enumerate(zip((2, 4, 14, 1), widths, strict=True)):
        blocks = []
        for block in range(count):
            blocks.append(_block(before, after, 2 if stage and not block else 1, fused=single))
            before = after
        parts[f"stage{stage + 1}"] = nn.Sequential(*blocks)
    return named(parts | classifier(before, len(spec.classes)))


def _block(before: int, after: int, stride: int, *, fused: bool) -> nn.Module:
    if fused:
        return named({"conv": conv(before, after, 3, stride, bias=True), "relu": nn.ReLU()})
    return Branches(before, after, stride)


def fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a RepVGG whose blocks are single convolutions, from those of its branches; the logits stay.

    Args:
        state: Tensors of `repvgg` without `fused`, by name.
    """
    blocks = [name.removesuffix(".dense.conv.weight") for name in state if name.endswith(".dense.conv.weight")]
    made = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(f"{b}." for b in blocks))}
    for block in blocks:
        weight, bias = _convolved(state, f"{block}.dense.conv", f"{block}.dense.bn")
        for conv_name, norm in ((f"{block}.point.conv", f"{block}.point.bn"), (None, f"{block}.identity")):
            if f"{norm}.weight" in state:
                more, shift = _convolved(state, conv_name, norm)
                weight, bias = weight + more, bias + shift
        made |= {f"{block}.conv.weight": weight.float(), f"{block}.conv.bias": bias.float()}
    return made


def _convolved(state: Mapping[str, Tensor], conv_name: str | None, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64 of a 3x3 convolution that does the same as a branch with its batch norm."""
    gain, shift, mean, var = (
        state[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (var + nn.BatchNorm2d(1).eps).sqrt()
    plain = torch.eye(len(gain))[:, :, None, None] if conv_name is None else state[f"{conv_name}.weight"]
    margin = (3 - plain.shape[-1]) // 2
    weight = nn.functional.pad(plain.double(), (margin,) * 4)
    return weight * scale[:, None, None, None], shift - mean * scale


BUILDERS = {
    **{f"cifar/vgg{depth}": partial(vgg, depth) for depth in VGG},
    **{f"cifar/repvgg-{kind}": partial(repvgg, kind) for kind in REPVGG},
}
