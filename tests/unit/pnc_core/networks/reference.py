"""Logits of published networks, computed from their state dicts by the authors' formulas with torch's functions."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


class Layers:
    """Layers by the names of a state dict."""

    def __init__(self, state: State) -> None:
        self.state = state

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.state

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        parts = [self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts)

    def head(self, x: Tensor) -> Tensor:
        return F.linear(x.mean((2, 3)), self.state["linear.weight"], self.state["linear.bias"])

    def blocks(self) -> list[tuple[str, int]]:
        """Name and stride of each residual block."""
        names = dict.fromkeys(".".join(n.split(".")[:2]) for n in self.state if n.startswith("layer"))
        return [(name, 2 if name.endswith(".0") and not name.startswith("layer1") else 1) for name in names]


def residual(
    state: State, x: Tensor, shortcut: Literal["pad-both", "pad-end", "pool", "conv"], *, pool: bool = False
) -> Tensor:
    """ResNet: kuangliu's and chenyaofo's with "conv", akamaster's with "pad-both"; huyvnphan's with `pool`."""
    net = Layers(state)
    x = F.relu(net.norm(net.conv(x, "conv1"), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1) if pool else x
    for block, stride in net.blocks():
        deep = net.has(f"{block}.conv3")
        y = F.relu(net.norm(net.conv(x, f"{block}.conv1", 1 if deep else stride), f"{block}.bn1"))
        y = net.norm(net.conv(y, f"{block}.conv2", stride if deep else 1), f"{block}.bn2")
        if deep:
            y = net.norm(net.conv(F.relu(y), f"{block}.conv3"), f"{block}.bn3")
        x = F.relu(y + _around(net, x, block, stride, y.shape[1], shortcut))
    return net.head(x)


def _around(net: Layers, x: Tensor, block: str, stride: int, planes: int, shortcut: str) -> Tensor:
    if stride == 1 and x.shape[1] == planes:
        return x
    if shortcut == "conv":
        return net.norm(net.conv(x, f"{block}.shortcut.0", stride), f"{block}.shortcut.1")
    if shortcut == "pad-both":
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4), "constant", 0)
    less = x[:, :, ::2, ::2] if shortcut == "pad-end" else F.avg_pool2d(x, 2)
    return torch.cat([less, torch.zeros_like(less)], 1)


def preactivated(
    state: State, x: Tensor, *, activated: bool, late: bool, stem: bool = False, final: bool = False
) -> Tensor:
    """PreActResNet and Wide ResNet: whether shortcuts read the activated input, and conv2 has the stride."""
    net = Layers(state)
    x = net.conv(x, "conv1")
    x = F.relu(net.norm(x, "bn1")) if stem else x
    for block, stride in net.blocks():
        first = F.relu(net.norm(x, f"{block}.bn1"))
        y = net.conv(first, f"{block}.conv1", 1 if late else stride)
        y = net.conv(F.relu(net.norm(y, f"{block}.bn2")), f"{block}.conv2", stride if late else 1)
        if net.has(f"{block}.conv3"):
            y = net.conv(F.relu(net.norm(y, f"{block}.bn3")), f"{block}.conv3")
        if net.has(f"{block}.shortcut.0"):
            x = net.conv(first if activated else x, f"{block}.shortcut.0", stride)
        x = x + y
    return net.head(F.relu(net.norm(x, "bn1")) if final else x)


def dense(state: State, x: Tensor, *, newest_first: bool, active: bool) -> Tensor:
    """DenseNet: the order in which channels are joined, and whether transitions have a ReLU."""
    net = Layers(state)
    x = net.conv(x, "conv1")
    for block in range(1, 5):
        for layer in range(sum(n.startswith(f"dense{block}.") and n.endswith("conv1.weight") for n in state)):
            path = f"dense{block}.{layer}"
            y = net.conv(F.relu(net.norm(x, f"{path}.bn1")), f"{path}.conv1")
            y = net.conv(F.relu(net.norm(y, f"{path}.bn2")), f"{path}.conv2")
            x = torch.cat([y, x] if newest_first else [x, y], 1)
        if net.has(f"trans{block}.conv"):
            y = net.norm(x, f"trans{block}.bn")
            x = F.avg_pool2d(net.conv(F.relu(y) if active else y, f"trans{block}.conv"), 2)
    return net.head(F.relu(net.norm(x, "bn")))


def branches(state: State, x: Tensor) -> Tensor:
    """RepVGG."""
    net = Layers(state)
    blocks = dict.fromkeys(n.partition(".dense")[0] for n in state if ".dense" in n)
    for block in blocks:
        stride = 2 if block in ("stage2.0", "stage3.0", "stage4.0") else 1
        y = net.norm(net.conv(x, f"{block}.dense.conv", stride), f"{block}.dense.bn")
        y = y + net.norm(net.conv(x, f"{block}.point.conv", stride), f"{block}.point.bn")
        x = F.relu(y + net.norm(x, f"{block}.identity") if net.has(f"{block}.identity") else y)
    return net.head(x)


Formula = Callable[[State, Tensor], Tensor]
