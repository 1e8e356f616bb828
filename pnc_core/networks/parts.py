"""Parts that the networks for small images share."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Shortcut = Literal["pad-both", "pad-end", "pool", "conv"]
"""How a shortcut reaches other channels and another grid.

`pad-both`: every second pixel; zeros in front of the channels and behind them, half of the new channels each.
`pad-end`: every second pixel; zeros behind the channels.
`pool`: mean of 2x2 pixels; zeros behind the channels.
`conv`: 1x1 convolution and batch norm.
"""
SHORTCUTS: tuple[Shortcut, ...] = get_args(Shortcut)


def named(parts: Mapping[str, nn.Module]) -> nn.Sequential:
    """Parts one behind another; tensors are called after them."""
    return nn.Sequential(OrderedDict(parts))


def conv(before: int, after: int, size: int = 3, stride: int = 1, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution whose output has the input's grid, divided by the stride."""
    return nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=bias)


def classifier(features: int, classes: int) -> dict[str, nn.Module]:
    """Global average pooling and a linear layer."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(features, classes)}


class Padded(nn.Module):
    """A shortcut without parameters: fewer pixels, and more channels of zeros."""

    def __init__(self, before: int, after: int, stride: int, kind: Shortcut) -> None:
        super().__init__()
        self.pooled, self.stride = kind == "pool", stride
        front = (after - before) // 2 if kind == "pad-both" else 0
        self.padding = (0, 0, 0, 0, front, after - before - front)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        x = nn.functional.avg_pool2d(x, self.stride) if self.pooled else x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, self.padding)


def shortcut(before: int, after: int, stride: int, kind: Shortcut) -> nn.Module:
    """The shortcut of a residual block; the identity where channels and grid stay."""
    if stride == 1 and before == after:
        return nn.Identity()
    if kind == "conv":
        return nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))
    return Padded(before, after, stride, kind)


class Residual(nn.Module):
    """A path of layers and a shortcut around it, added up and activated."""

    def __init__(self, path: Mapping[str, nn.Module], around: nn.Module, *, last: nn.Module) -> None:
        super().__init__()
        self.path = tuple(path)
        for name, layer in path.items():
            self.add_module(name, layer)
        self.shortcut, self.last = around, last

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = x
        for name in self.path:
            y = self.get_submodule(name)(y)
        return self.last(y + self.shortcut(x))  # type: ignore[no-any-return]


class Joined(nn.Module):
    """A path of layers whose channels are put beside its input's."""

    def __init__(self, path: Mapping[str, nn.Module], *, newest_first: bool) -> None:
        super().__init__()
        self.path, self.newest_first = tuple(path), newest_first
        for name, layer in path.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + growth, H, W)."""
        y = x
        for name in self.path:
            y = self.get_submodule(name)(y)
        return torch.cat([y, x] if self.newest_first else [x, y], 1)
