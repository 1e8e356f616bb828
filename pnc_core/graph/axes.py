"""Find the channel dimension of every tensor, and the grid of patches behind its tokens.

Both follow from a traced graph, node by node. Own choice: this needs no table of architectures.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

MAX_LEADING = 16
"""Largest number of class and register tokens before the patches. Known networks have one to five."""


def channel_axes(graph_module: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Channel dimension of every tensor node, by name.

    Convolutions and batch norms: dimension 1. Linear layers, layer norms and attention: the last dimension.
    Permutations move the dimension. Other nodes keep the dimension of their input.
    """
    axes: dict[str, int] = {}
    for node in graph_module.graph.nodes:
        if node.name in shapes:
            axes[node.name] = _channel_axis(graph_module, node, shapes, axes)
    return axes


def _channel_axis(
    graph_module: fx.GraphModule, node: fx.Node, shapes: dict[str, tuple[int, ...]], axes: dict[str, int]
) -> int:
    rank = len(shapes[node.name])
    module = graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.Linear | nn.LayerNorm | nn.MultiheadAttention):
        return rank - 1
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
        return 1
    before = next((a for a in node.all_input_nodes if shapes.get(a.name) and a.op != "get_attr"), None)
    if before is None:
        return 1 if rank == 4 else rank - 1
    axis, shape = axes[before.name], shapes[before.name]
    if len(shape) == rank:
        order = _permutation(module, node, rank)
        return order.index(axis) if order else axis
    # A reshape: take a dimension of the same size, preferably at the same index.
    places = [i for i, size in enumerate(shapes[node.name]) if i > 0 and size == shape[axis]]
    if axis in places or not places:
        return axis if places else 1 if rank == 4 or (axis == 1 and rank > 1) else rank - 1
    return places[-1]


def _permutation(module: nn.Module | None, node: fx.Node, rank: int) -> list[int] | None:
    if module is not None:
        return list(getattr(module, "dims", ())) or None if type(module).__name__ == "Permute" else None
    given: list[Any] = [a for a in (*node.args, *node.kwargs.values()) if not isinstance(a, fx.Node)]
    if node.target in (torch.permute, "permute"):
        dims = given[0] if isinstance(given[0], Sequence) else given
        return [int(d) % rank for d in dims]
    if node.target in (torch.transpose, torch.swapaxes, torch.swapdims, "transpose", "swapaxes", "swapdims"):
        one, other = (int(d) % rank for d in given)
        order = list(range(rank))
        order[one], order[other] = other, one
        return order
    return None


def patch_grids(
    graph_module: fx.GraphModule, shapes: dict[str, tuple[int, ...]], axes: dict[str, int]
) -> dict[str, tuple[int, int]]:
    """Rows and columns of the patches behind tokens, by node.

    They are those of the last map before the node, if the number of tokens is rows x columns plus at most
    `MAX_LEADING`.
    """
    found, rows, columns = {}, 0, 0
    for node in (n for n in graph_module.graph.nodes if n.name in shapes):
        grid = [n for i, n in enumerate(shapes[node.name]) if i not in (0, axes[node.name])]
        if len(grid) == 2 and node.op == "call_module":  # inside attention there are tensors of this rank, too
            is_map = isinstance(graph_module.get_submodule(node.target), nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
            rows, columns = grid if is_map else (rows, columns)
        elif len(grid) == 1 and 0 <= grid[0] - rows * columns <= MAX_LEADING:
            found[node.name] = (rows, columns)
    return found
