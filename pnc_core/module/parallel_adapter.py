"""Light adapters inside the tail: beside a copied layer, added to what it makes.

A copied layer was made for the source's own activations and for all of its
channels. An adapter beside it mends what the front adapter missed and what the
removed channels carried, while the layer itself stays bit for bit the
source's. It starts at zero, so that inserting it changes nothing. It is trained, or has a
closed form (`pnc_core.method.reconstruct`).

Own choice; parallel residual adapters are known (Rebuffi et al., "Efficient
parametrization of multi-domain deep neural networks", CVPR 2018).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pnc_core.devices import full_precision
from pnc_core.errors import PositionError
from pnc_core.graph.cost import Cost

RANK_SHARE = 16
"""Beside a layer without spatial extent the adapter has rank min(in, out) / 16."""


class ParallelAdapter(nn.Module):
    """x -> U D x + b, one linear map of channels at every place the layer answers for.

    Beside a convolution larger than 1x1 the map is whole (D is the identity and left out): that is
    1 / k^2 of the layer. So it is beside the layer that makes the logits. Elsewhere its rank is limited.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, *, whole: bool) -> None:
        super().__init__()
        width_in, width_out = layer.weight.shape[1], layer.weight.shape[0]
        self.stride: tuple[int, ...] | None = tuple(layer.stride) if isinstance(layer, nn.Conv2d) else None
        rank = _rank(width_in, width_out)
        self.bias = nn.Parameter(torch.zeros(width_out))
        self.up = nn.Parameter(torch.zeros(width_out, width_in if whole else rank))
        self.down = None if whole else nn.Parameter(_directions(rank, width_in))

    def reads(self, x: Tensor) -> Tensor:
        """What of its layer's input it looks at: (N, C_in, H / stride, W / stride), or all of (..., C_in)."""
        return x if self.stride is None else x[:, :, :: self.stride[0], :: self.stride[1]]

    @full_precision()
    def approximate(self, weight: Tensor, bias: Tensor, rows: Tensor) -> None:
        """Answer as W x + b does, or, where the rank is limited, as nearly as it allows on average.

        Worked out in float32 or better on the device of `weight`, whatever autocast says.

        Args:
            weight: W float32 (C_out, C_in).
            bias: b float32 (C_out,), on the same device.
            rows: Values of x (rows, C_in) to be near on, on any device.
        """
        rows = rows.to(weight)
        if self.down is not None:
            mean = rows.mean(0)
            answers = ((rows - mean) @ weight.T).double()
            _, directions = torch.linalg.eigh(answers.T @ answers)  # the largest ones come last
            best = directions[:, -len(self.down) :].float()
            down = best.T @ weight
            self.down.data.copy_(down)
            self.up.data.copy_(best)
            bias = bias + (weight - best @ down) @ mean
        else:
            self.up.data.copy_(weight)
        self.bias.data.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride), or (..., C_in) -> (..., C_out)."""
        weight: Tensor = self.up if self.down is None else self.up @ self.down
        if self.stride is None:
            return F.linear(x, weight, self.bias)
        answer: Tensor = torch.conv2d(x, weight[:, :, None, None], self.bias, stride=self.stride)
        return answer


def is_full_rank(part: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the adapter beside a layer is a whole map."""
    layer = part.get_submodule(str(node.target))
    return node in readout(part) or (isinstance(layer, nn.Conv2d) and layer.weight[0, 0].numel() > 1)


def _rank(width_in: int, width_out: int) -> int:
    return max(1, min(width_in, width_out) // RANK_SHARE)


def parallel_cost(width_in: int, width_out: int, places: int, *, whole: bool) -> Cost:
    """What the adapter costs beside a layer.

    Args:
        width_in: Channels that the layer reads.
        width_out: Channels that it makes.
        places: How many places of one image it answers for.
        whole: As `is_full_rank` says.
    """
    maps = width_in * width_out
    if whole:
        return Cost(maps + width_out, maps * places)
    rank = _rank(width_in, width_out)
    return Cost(rank * (width_in + width_out) + width_out, maps * places + rank * maps)


def _directions(rank: int, width: int) -> Tensor:
    """Where a limited map starts looking: random, the same for equal shapes. Its answer is zero all the same."""
    return torch.randn(rank, width, generator=torch.Generator().manual_seed(width)) / math.sqrt(width)


def insert_parallel_adapters(part: fx.GraphModule, layers: Sequence[str] | None = None) -> dict[str, ParallelAdapter]:
    """Put an adapter beside layers of a graph, in place.

    Args:
        part: A tail, already cut down.
        layers: Dotted names; None: all that can have one and are trained, that is, all but the one of the logits.

    Returns:
        The adapters by layer, in the graph's order.

    Raises:
        PositionError: a layer is not there or cannot have an adapter.
    """
    able = {str(node.target): node for node in (*adaptable(part), *(readout(part) if layers else ()))}
    unable = [name for name in layers or () if name not in able]
    if unable:
        raise PositionError(f"parallel adapters: expected layers among {sorted(able)}, got {unable}")
    adapters: dict[str, ParallelAdapter] = {}
    for i, (name, node) in enumerate(able.items()):
        if layers is not None and name not in layers:
            continue
        layer = part.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        adapters[name] = ParallelAdapter(layer, full_rank=is_full_rank(part, node)).to(layer.weight.device)
        part.add_submodule(f"inner_{i}", adapters[name])
        _add_beside(part.graph, node, f"inner_{i}")
    part.recompile()
    return adapters


def _add_beside(graph: fx.Graph, node: fx.Node, adapter: str) -> None:
    with graph.inserting_after(node):
        extra = graph.call_module(adapter, (node.args[0],))
    with graph.inserting_after(extra):
        total = graph.call_function(torch.add, (node, extra))
    node.replace_all_uses_with(total)
    total.update_arg(0, node)


def adaptable(part: fx.GraphModule, *, grouped: bool = False) -> Iterator[fx.Node]:
    """Layers that are called once and map every place by itself, the last one left out: the head is behind it.

    Args:
        part: A tail, cut down or not.
        grouped: Also convolutions of separate groups, which can have an adapter once a single group is left.
    """
    output = next(n for n in part.graph.nodes if n.op == "output")
    calls = [n for n in part.graph.nodes if n.op == "call_module"]
    targets = [n.target for n in calls]
    for node in calls:
        if targets.count(node.target) == 1 and node is not output.args[0][0]:
            layer = part.get_submodule(str(node.target))
            able = isinstance(layer, nn.Conv2d) and _aligned(layer) and (grouped or layer.groups == 1)
            if able or isinstance(layer, nn.Linear):
                yield node


def readout(part: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The linear layer that makes the logits, if one does and is called once."""
    output = next(n for n in part.graph.nodes if n.op == "output")
    node = output.args[0][0]
    once = node.op == "call_module" and sum(n.target == node.target for n in part.graph.nodes) == 1
    return (node,) if once and isinstance(part.get_submodule(str(node.target)), nn.Linear) else ()


def _aligned(layer: nn.Conv2d) -> bool:
    """Is the centre of the kernel over the place that the stride picks?"""
    pairs = zip(layer.kernel_size, layer.padding, layer.dilation, strict=False)
    return not isinstance(layer.padding, str) and all(k % 2 == 1 and p == d * (k - 1) // 2 for k, p, d in pairs)
