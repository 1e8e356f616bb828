"""Residual networks whose blocks begin with batch norm and ReLU: PreActResNet and Wide ResNet.

References:
    He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016; Zagoruyko and Komodakis, "Wide Residual
    Networks", BMVC 2016. Published code differs in four places, which are options here.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, get_args

from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.networks.options import choice, flag, whole
from pnc_core.networks.parts import classifier, conv, named
from pnc_core.networks.residual import BOTTLENECK, STAGES

Reads = Literal["activated", "input"]
"""What a shortcut with a convolution reads: the block's input after batch norm and ReLU, or as it comes."""
Strided = Literal["conv1", "conv2"]
"""The convolution of a block that has the stride."""
WIDE_DEPTHS = (16, 22, 28, 34, 40)
MAX_WIDEN = 64


class PreActivated(nn.Module):
    """A block without activation behind the sum."""

    def __init__(self, path: Mapping[str, nn.Module], around: nn.Module | None, reads: Reads) -> None:
        super().__init__()
        self.rest = tuple(path)[2:]
        for name, layer in path.items():
            self.add_module(name, layer)
        self.shortcut, self.activated = around, reads == "activated"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        first = self.get_submodule("relu1")(self.get_submodule("bn1")(x))
        y = first
        for name in self.rest:
            y = self.get_submodule(name)(y)
        if self.shortcut is None:
            return y + x  # type: ignore[no-any-return]
        return y + self.shortcut(first if self.activated else x)  # type: ignore[no-any-return]


def preact_resnet(
    depth: int,
    spec: NetworkSpec,
    *,
    width: int = 64,
    shortcut_of: Reads = "activated",
    stride_in: Strided = "conv2",
    bias: bool = False,
    stem_norm: bool = False,
) -> nn.Module:
    """PreActResNet-18 and its relatives, without batch norm in front of the classifier.

    `stride_in` counts in blocks with three convolutions alone; with two, the first has the stride.
    """
    return _network(
        spec, STAGES[depth], whole("width", width), [whole("width", width) * 2**stage for stage in range(4)],
        shortcut_of, choice("stride_in", stride_in, get_args(Strided)) if depth >= BOTTLENECK else "conv1",
        bias=bias, stem_norm=stem_norm, final_norm=False, bottleneck=depth >= BOTTLENECK,
    )  # fmt: skip


def wide_resnet(
    depth: int,
    spec: NetworkSpec,
    *,
    widen: int = 10,
    width: int = 16,
    shortcut_of: Reads = "activated",
    stride_in: Strided = "conv1",
    bias: bool = False,
) -> nn.Module:
    """WRN-depth-widen: three stages of (depth - 4) / 6 blocks at `widen` times 16, 32 and 64 channels."""
    stem, factor = whole("width", width), whole("widen", widen, most=MAX_WIDEN)
    return _network(
        spec, [(depth - 4) // 6] * 3, stem, [factor * stem * 2**stage for stage in range(3)],
        shortcut_of, choice("stride_in", stride_in, get_args(Strided)),
        bias=bias, stem_norm=False, final_norm=True, bottleneck=False,
    )  # fmt: skip


BUILDERS = {
    **{f"cifar/preact-resnet{depth}": partial(preact_resnet, depth) for depth in STAGES},
    **{f"cifar/wrn{depth}": partial(wide_resnet, depth) for depth in WIDE_DEPTHS},
}


def _network(
    spec: NetworkSpec, counts: Sequence[int], stem: int, widths: Sequence[int], shortcut_of: Reads, stride_in: Strided,
    *, bias: bool, stem_norm: bool, final_norm: bool, bottleneck: bool,
) -> nn.Module:  # fmt: skip
    biased, reads = flag("bias", bias), choice("shortcut_of", shortcut_of, get_args(Reads))
    parts: dict[str, nn.Module] = {"conv1": conv(spec.input_size[0], stem, bias=biased)}
    if flag("stem_norm", stem_norm):
        parts |= {"bn1": nn.BatchNorm2d(stem), "relu1": nn.ReLU()}
    before = stem
    for stage, (count, inner) in enumerate(zip(counts, widths, strict=True)):
        after, blocks = inner * (4 if bottleneck else 1), []
        for block in range(count):
            stride = 2 if stage and not block else 1
            strides = (stride, 1) if stride_in == "conv1" else (1, stride)
            path = _path(before, inner, after, strides, bottleneck=bottleneck, bias=biased)
            same = stride == 1 and before == after
            around = None if same else nn.Sequential(conv(before, after, 1, stride, bias=biased))
            blocks.append(PreActivated(path, around, reads))
            before = after
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    if final_norm:
        parts |= {"bn1": nn.BatchNorm2d(before), "relu1": nn.ReLU()}
    return named(parts | classifier(before, len(spec.classes)))


def _path(
    before: int, inner: int, after: int, strides: tuple[int, int], *, bottleneck: bool, bias: bool
) -> dict[str, nn.Module]:
    one, two = strides
    path: dict[str, nn.Module] = {
        "bn1": nn.BatchNorm2d(before), "relu1": nn.ReLU(),
        "conv1": conv(before, inner, 1 if bottleneck else 3, one, bias=bias),
        "bn2": nn.BatchNorm2d(inner), "relu2": nn.ReLU(), "conv2": conv(inner, inner, 3, two, bias=bias),
    }  # fmt: skip
    if bottleneck:
        path |= {"bn3": nn.BatchNorm2d(inner), "relu3": nn.ReLU(), "conv3": conv(inner, after, 1, bias=bias)}
    return path
