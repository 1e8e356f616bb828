"""Parallel adapters: small trainable maps beside the copied layers of a tail.

A copied layer was trained for the source's activations and for all channels. The adapter beside it corrects errors of
the front adapter and replaces the contribution of removed channels:

    output = layer(x) + U D x + b

The layer's own weights stay bit for bit the source's. U and b start at zero, so inserting the adapter changes nothing.
It is trained, or solved in closed form (`pnc_core.method.reconstruct`).

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
"""Beside a 1x1 convolution or a linear layer the adapter has rank min(in, out) / 16."""


class ParallelAdapter(nn.Module):
    """x -> U D x + b: one linear map of channels, applied at every output place of the layer.

    Full rank (D is the identity and is not stored) beside a k x k convolution with k > 1, where it has 1 / k^2 of the
    layer's numbers, and beside the layer that makes the logits. Elsewhere the rank is limited.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, *, full_rank: bool) -> None:
        super().__init__()
        width_in, width_out = layer.weight.shape[1], layer.weight.shape[0]
        self.stride: tuple[int, ...] | None = tuple(layer.stride) if isinstance(layer, nn.Conv2d) else None
        rank = _rank(width_in, width_out)
        self.bias = nn.Parameter(torch.zeros(width_out))
        self.up = nn.Parameter(torch.zeros(width_out, width_in if full_rank else rank))
        self.down = None if full_rank else nn.Parameter(_directions(rank, width_in))

    def reads(self, x: Tensor) -> Tensor:
        """The part of the layer's input that it reads: (N, C_in, H / stride, W / stride), or all of (..., C_in)."""
        return x if self.stride is None else x[:, :, :: self.stride[0], :: self.stride[1]]

    @full_precision()
    def approximate(self, weight: Tensor, bias: Tensor, rows: Tensor) -> None:
        """Set the adapter to W x + b, or to the closest map of its rank r:

            min over rank-r maps V of sum_rows |V x + b' - (W x + b)|^2

        The solution is V = E E' W, where E holds the r main directions of the centred outputs W (x - mean). It is
        computed in float32 or float64 on the device of `weight`, also inside autocast.

        Args:
            weight: W float32 (C_out, C_in).
            bias: b float32 (C_out,), on the same device.
            rows: Inputs x (rows, C_in) of the sum, on any device.
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
    """Has the adapter beside this layer full rank?"""
    layer = part.get_submodule(str(node.target))
    return node in readout(part) or (isinstance(layer, nn.Conv2d) and layer.weight[0, 0].numel() > 1)


def _rank(width_in: int, width_out: int) -> int:
    return max(1, min(width_in, width_out) // RANK_SHARE)


def parallel_cost(width_in: int, width_out: int, places: int, *, full_rank: bool) -> Cost:
    """Cost of the adapter beside a layer.

    Args:
        width_in: Number of channels that the layer reads.
        width_out: Number of channels that the layer makes.
        places: Number of output places per image.
        full_rank: As `is_full_rank` returns it.
    """
    maps = width_in * width_out
    if full_rank:
        return Cost(maps + width_out, maps * places)
    rank = _rank(width_in, width_out)
    return Cost(rank * (width_in + width_out) + width_out, maps * places + rank * maps)


def _directions(rank: int, width: int) -> Tensor:
    """Start of D, (rank, width): random, equal for equal shapes. U starts at zero, so the adapter's output is zero."""
    return torch.randn(rank, width, generator=torch.Generator().manual_seed(width)) / math.sqrt(width)


def insert_parallel_adapters(part: fx.GraphModule, layers: Sequence[str] | None = None) -> dict[str, ParallelAdapter]:
    """Insert parallel adapters into a graph, in place.

    Args:
        part: A tail, already cut down.
        layers: Dotted names of layers; None: every adaptable layer except the logits layer.

    Returns:
        The adapters by layer, in the graph's order.

    Raises:
        PositionError: a layer does not exist or cannot have an adapter.
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
    """Layers that can have a parallel adapter, except the logits layer, whose outputs the head corrects.

    They are linear layers, and convolutions whose kernel is centred on the place that the stride picks. Each must be
    called once.

    Args:
        part: A tail, cut down or not.
        grouped: Include grouped convolutions. They can have an adapter once a single group is left.
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
    """The linear layer that makes the logits, if there is one and it is called once; else empty."""
    output = next(n for n in part.graph.nodes if n.op == "output")
    node = output.args[0][0]
    once = node.op == "call_module" and sum(n.target == node.target for n in part.graph.nodes) == 1
    return (node,) if once and isinstance(part.get_submodule(str(node.target)), nn.Linear) else ()


def _aligned(layer: nn.Conv2d) -> bool:
    """Is the kernel centred on the place that the stride picks?"""
    pairs = zip(layer.kernel_size, layer.padding, layer.dilation, strict=False)
    return not isinstance(layer.padding, str) and all(k % 2 == 1 and p == d * (k - 1) // 2 for k, p, d in pairs)
