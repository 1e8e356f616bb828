"""Channel groups of a source tail: channels that must be kept or removed together.

Every tensor of the graph has one *space* of channels, or several spaces in a row after a concatenation. The graph is
read once, node by node:

- A convolution or linear layer reads spaces and makes a new space.
- Norms, activations, pooling and grouped convolutions pass spaces on.
- Additions and products unite spaces.
- An unknown node freezes its input spaces: their channels cannot be removed.

Masking a channel of an unfrozen space at the inputs of its consumers gives the same logits as removing the channel.
This holds for every architecture that torch.fx can trace.

References:
    Own choice. Dependency graphs for structural pruning are known (Fang et al.,
    "DepGraph", CVPR 2023). This reader is shorter, because it may freeze what it does not know.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from pnc_core.graph.attention import Heads
from pnc_core.graph.axes import channel_axes
from pnc_core.graph.layouts import Layout, Piece, Pieces
from pnc_core.graph.positions import data_nodes
from pnc_core.graph.spaces import Flow, Run, Space

CARRYING_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU,
    nn.Dropout, nn.Dropout2d, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
CARRYING_FUNCTIONS: set[Callable[..., object] | str] = {
    F.relu, F.relu6, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.dropout, F.max_pool2d, F.avg_pool2d,
    F.adaptive_avg_pool2d, torch.relu, torch.sigmoid, torch.tanh, "relu", "sigmoid", "contiguous", "clone",
}  # fmt: skip
CARRYING_NAMES = {"StochasticDepth", "stochastic_depth"}
"""Modules of torchvision that do nothing in eval mode. They are listed by name to avoid importing torchvision."""
ADDING = {operator.add, operator.iadd, torch.add, "add", "add_"}
MULTIPLYING = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
SCALING = {operator.sub, operator.truediv, operator.pow, operator.neg, torch.sub, torch.div, torch.pow}
CHANNELLESS = {"ndim", "dtype", "device"}
"""Attributes of a tensor that do not depend on its number of channels."""


@dataclass(frozen=True)
class Consumer:
    """A layer that reads channels."""

    node: str
    module: str
    axis: int
    """Dimension of the layer's input that holds the channels."""
    pieces: Pieces
    """The groups that the layer reads along this dimension."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that several layers share. Removing a channel removes it from all of them."""

    name: str
    """Path of the first layer that makes the channels."""
    width: int
    """Number of removable units: single channels, or whole groups of channels behind a grouped convolution."""
    producers: tuple[str, ...]
    """Modules that make the channels."""
    carriers: tuple[str, ...]
    """Batch norms and grouped convolutions that pass the channels on."""
    consumers: tuple[Consumer, ...]
    residual: bool
    """The channels are a residual stream (united by an addition), not inner channels of a block."""


@dataclass(frozen=True)
class Channels:
    """Channel groups of one graph."""

    groups: tuple[ChannelGroup, ...]
    """Groups that can be pruned."""
    logits: ChannelGroup | None
    """Group of the logits, one row per class; None if the classes cannot be separated."""
    layouts: dict[str, Layout]
    """By module: the groups along the rows and columns of its tensors."""
    pieces: dict[str, Pieces]
    """By tensor node: the groups along its channel dimension."""


def channel_groups(
    graph_module: fx.GraphModule,
    shapes: dict[str, tuple[int, ...]],
    logits: fx.Node,
    axes: Mapping[str, int] | None = None,
) -> Channels:
    """Find the channel groups of a graph.

    Args:
        graph_module: A traced network, or a tail made by `pnc_core.graph.features.cut`.
        shapes: Batched shape of every tensor node, by name.
        logits: The node that makes the logits; its last dimension holds the classes.
        axes: Channel dimension of every tensor node. For a tail give those of the whole network, because the channel
            dimension of the tail's input cannot be derived. By default derived from the graph.
    """
    reader = _Reader(graph_module, shapes, axes or channel_axes(graph_module, shapes))
    for node in data_nodes(graph_module.graph):
        reader.read(node)
    return reader.result(logits)


class _Reader:
    def __init__(
        self, graph_module: fx.GraphModule, shapes: dict[str, tuple[int, ...]], axes: Mapping[str, int]
    ) -> None:
        self.graph_module, self.shapes, self.axes = graph_module, shapes, axes
        self.flows: dict[str, Flow] = {}
        self.inputs: dict[str, Flow] = {}
        self.outputs: dict[str, Flow] = {}
        self.readers: dict[str, tuple[str, Flow]] = {}
        self.spaces: list[Space] = []
        self.parts: dict[str, list[Space]] = {}
        """Spaces of the equal parts into which a node divides a tensor, by node."""
        self.called = [str(n.target) for n in graph_module.graph.nodes if n.op == "call_module"]
        self.owners = [str(n.target).rpartition(".")[0] for n in graph_module.graph.nodes if n.op == "get_attr"]

    def read(self, node: fx.Node) -> None:
        """Record the flow of the node's tensor."""
        if node.name not in self.shapes:
            if not (node.target is getattr and node.args[1] in CHANNELLESS) and not self._divide(node):
                self._freeze_inputs(node)
            return
        flow = self._module(node) if node.op == "call_module" else self._function(node)
        if flow is None:
            self._freeze_inputs(node)
            if not self.shapes[node.name]:
                return  # a single number
            axis = self.axes[node.name]
            flow = Flow((Run(self._space(self.shapes[node.name][axis], frozen=True)),), axis)
        self.flows[node.name] = flow

    def _module(self, node: fx.Node) -> Flow | None:
        name = str(node.target)
        module = self.graph_module.get_submodule(name)
        # Unknown: a module that is called more than once, or whose tensors other nodes read too.
        if (self.called.count(name) > 1 or name in self.owners) and [*module.parameters(), *module.buffers()]:
            return None
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            return self._layer(node, (module.in_channels, 1), (module.out_channels, 1))
        if isinstance(module, Heads):
            return self._heads(node, module)
        if isinstance(module, nn.Linear):
            last = len(self.shapes[node.name]) - 1
            return self._layer(node, (module.in_features, last), (module.out_features, last))
        flow = self._input(node)
        if flow is None:
            return None
        if isinstance(module, nn.Conv2d):
            return self._grouped(name, module, flow)
        if isinstance(module, nn.BatchNorm2d) and flow.axis == 1:
            return self._carry(name, flow)
        if isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1:
            return self._flatten(node, flow)
        return flow if _carries(module, flow) else None

    def _layer(self, node: fx.Node, reads: tuple[int, int], makes: tuple[int, int], name: str | None = None) -> Flow:
        """A dense layer; `reads` and `makes` are (width, axis). It makes a new space even if its input is unknown."""
        name, flow = name or str(node.target), self._input(node)
        if flow is not None and (flow.features, flow.axis) == reads:
            self.inputs[name] = flow
            self.readers[node.name] = (name, flow)
            for space in flow.spaces:
                space.consumers.append(node.name)
        else:
            self._freeze_inputs(node)
        space = self._space(makes[0])
        space.producers.append(name)
        self.outputs[name] = Flow((Run(space),), makes[1])
        return self.outputs[name]

    def _heads(self, node: fx.Node, module: Heads) -> Flow:
        """Attention heads; a head is removed as a whole. Queries, keys and values are three runs of the same space."""
        last = len(self.shapes[node.name]) - 1
        flow = self._layer(node, (module.width, last), (module.width, last))
        next(flow.spaces).block = module.size
        self.outputs[str(node.target)] = Flow(flow.runs * 3, last)
        return flow

    def _grouped(self, name: str, module: nn.Conv2d, flow: Flow) -> Flow | None:
        """A grouped convolution passes channels on; the channels of one group form a block. Depthwise: block 1."""
        size, several = module.in_channels // module.groups, module.out_channels % module.in_channels == 0
        if flow.axis != 1 or flow.features != module.in_channels or not several:
            return None
        if size > 1:
            if len(flow.runs) > 1 or flow.runs[0].repeat > 1:
                return None
            space = next(flow.spaces)
            space.block = math.lcm(space.block, size)
        return self._carry(name, flow.repeated(module.out_channels // module.in_channels))

    def _carry(self, name: str, flow: Flow) -> Flow:
        for space in flow.spaces:
            space.carriers.append(name)
        self.outputs[name] = flow
        return flow

    def _function(self, node: fx.Node) -> Flow | None:
        if node.op == "placeholder":
            return None
        if node.target in ADDING or node.target in MULTIPLYING or node.target in SCALING:
            return self._arithmetic(node)
        if node.target is torch.cat:
            return self._concatenate(node)
        if node.target in (F.linear, F.conv2d, F.batch_norm):
            return self._functional(node)
        if node.target is operator.getitem and str(node.args[0]) in self.parts:
            divided, place = node.args
            return Flow((Run(self.parts[str(divided)][place]),), self.axes[node.name])  # type: ignore[index]
        flow = self._input(node)
        if flow is None:
            return None
        name = str(getattr(node.target, "__name__", node.target))
        if node.target in CARRYING_FUNCTIONS or name in CARRYING_NAMES:
            return flow if flow.axis == 1 or "pool" not in name else None
        if node.target in (torch.flatten, "flatten") and node.args[1:] == (1,):
            return self._flatten(node, flow)
        return self._mean(node, flow) if node.target in (torch.mean, "mean") else None

    def _functional(self, node: fx.Node) -> Flow | None:
        """A functional layer (`F.linear`, `F.conv2d`, `F.batch_norm`) whose tensors belong to one module.

        No other node may read these tensors.
        """
        x, *tensors = node.all_input_nodes
        owners = {str(t.target).rpartition(".")[0] for t in tensors if t.op == "get_attr" and len(t.users) == 1}
        name = owners.pop() if len(owners) == 1 else ""
        if not tensors or any(t.op != "get_attr" for t in tensors) or name in self.called:
            return None
        if self.owners.count(name) != len(tensors):
            return None
        flow = self.flows.get(x.name)
        if node.target is F.batch_norm:
            return self._carry(name, flow) if flow is not None and flow.axis == 1 else None
        weight = getattr(self.graph_module.get_submodule(name), "weight", None)
        axis = 1 if node.target is F.conv2d else len(self.shapes[node.name]) - 1
        # A grouped convolution has fewer weight columns than input channels.
        whole = weight is not None and weight.shape[1:2] == self.shapes.get(x.name, ())[axis : axis + 1]
        if weight is None or not whole or node.args[1:2] != (tensors[0],):
            return None
        return self._layer(node, (weight.shape[1], axis), (weight.shape[0], axis), name)

    def _flatten(self, node: fx.Node, flow: Flow) -> Flow | None:
        before = self.shapes[node.all_input_nodes[0].name]
        if flow.axis != 1 or any(run.repeat != 1 for run in flow.runs) or len(before) < 2:
            return None
        return flow.repeated(math.prod(before[2:]))

    def _divide(self, node: fx.Node) -> bool:
        """Divide a space into equal parts, as gated linear units do; parts that are not united later on freeze."""
        flow = self._input(node) if node.target in ("chunk", torch.chunk) else None
        given = dict(zip(("input", "chunks", "dim"), node.args, strict=False)) | node.kwargs
        count, dim = given.get("chunks"), given.get("dim", 0)
        if flow is None or not isinstance(count, int) or not isinstance(dim, int) or len(flow.runs) != 1:
            return False
        (whole,), rank = flow.spaces, len(self.shapes[node.all_input_nodes[0].name])
        if dim % rank != flow.axis or flow.runs[0].repeat != 1 or whole.block != 1 or whole.width % count:
            return False
        self.parts[node.name] = parts = [whole.part(count) for _ in range(count)]
        self.spaces = [space for space in self.spaces if space is not whole] + parts
        for flows in (self.flows, self.inputs, self.outputs):
            flows.update({name: known.divided(whole, parts) for name, known in flows.items()})
        self.readers = {reader: (name, known.divided(whole, parts)) for reader, (name, known) in self.readers.items()}
        return True

    def _mean(self, node: fx.Node, flow: Flow) -> Flow | None:
        """A mean over places; a mean over channels is unknown."""
        rank = len(self.shapes[node.all_input_nodes[0].name])
        given = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        dims = [d % rank for d in (given if isinstance(given, list | tuple) else [given]) if isinstance(d, int)]
        if not dims or flow.axis in dims:
            return None
        kept = len(self.shapes[node.name]) == rank
        return Flow(flow.runs, flow.axis if kept else flow.axis - sum(d < flow.axis for d in dims))

    def _concatenate(self, node: fx.Node) -> Flow | None:
        tensors, dim = node.args[0], node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if not isinstance(tensors, list | tuple) or not isinstance(dim, int):
            return None
        flows = [self.flows.get(t.name) for t in tensors if isinstance(t, fx.Node)]
        axis = dim % len(self.shapes[node.name])
        if len(flows) != len(tensors) or any(flow is None or flow.axis != axis for flow in flows):
            return None
        return Flow(tuple(run for flow in flows if flow is not None for run in flow.runs), axis)

    def _arithmetic(self, node: fx.Node) -> Flow | None:
        """Arithmetic with a number passes channels on; addition or product of two tensors unites their channels."""
        tensors = [a for a in node.all_input_nodes if not self._is_number(a)]
        rest = [a for a in node.args if not isinstance(a, fx.Node)]
        if len(tensors) == 1 and all(isinstance(a, int | float) for a in rest):
            return self.flows.get(tensors[0].name)
        return None if node.target in SCALING else self._unite(node, added=node.target in ADDING)

    def _is_number(self, node: fx.Node) -> bool:
        if node.op != "get_attr":
            return False
        value = operator.attrgetter(str(node.target))(self.graph_module)
        return isinstance(value, torch.Tensor) and value.numel() == 1

    def _unite(self, node: fx.Node, *, added: bool) -> Flow | None:
        flows = [self.flows.get(a.name) for a in node.all_input_nodes]
        first = flows[0]
        if len(node.args) != 2 or first is None or not all(isinstance(a, fx.Node) for a in node.args):
            return None
        for other in flows[1:]:
            if other is None or other.axis != first.axis or not _alike(first, other):
                return None
        for other in flows:
            for a, b in zip(first.runs, other.runs if other else (), strict=True):
                a.space.root().unite(b.space.root(), added=added)
        return first

    def _space(self, width: int, *, frozen: bool = False) -> Space:
        space = Space(width, frozen=frozen)
        self.spaces.append(space)
        return space

    def _input(self, node: fx.Node) -> Flow | None:
        inputs = [a for a in node.all_input_nodes if a.op != "get_attr"]
        return self.flows.get(inputs[0].name) if len(inputs) == 1 else None

    def _freeze_inputs(self, node: fx.Node) -> None:
        for argument in node.all_input_nodes:
            if argument.name in self.flows:
                for space in self.flows[argument.name].spaces:
                    space.frozen = True

    def result(self, logits: fx.Node) -> Channels:
        flow = self.flows[logits.name]
        for (
            parts
        ) in self.parts.values():  # a node that divides equally must find equal parts after channels are removed
            if len({part.root() for part in parts}) > 1:
                for part in parts:
                    part.root().frozen = True
        last = next(flow.spaces)
        last.output = True
        roots = [s for s in self.spaces if s.parent is None]
        separable = len(flow.runs) == 1 and flow.runs[0].repeat == last.block == 1 and bool(last.producers)
        separable &= not last.consumers and not last.frozen
        consumers = {
            node: Consumer(node, name, read.axis, _pieces(read)) for node, (name, read) in self.readers.items()
        }
        return Channels(
            tuple(_group(s, consumers) for s in roots if s.prunable),
            _group(last, consumers) if separable else None,
            {
                name: Layout(*(_pieces(flows[name]) if name in flows else () for flows in (self.inputs, self.outputs)))
                for name in (self.inputs | self.outputs)
            },
            {name: _pieces(flow) for name, flow in self.flows.items()},
        )


def _carries(module: nn.Module, flow: Flow) -> bool:
    spatial = "Pool" in type(module).__name__ or isinstance(module, nn.Dropout2d)
    carries = isinstance(module, CARRYING_MODULES) or type(module).__name__ in CARRYING_NAMES
    return carries and (flow.axis == 1 or not spatial)


def _alike(a: Flow, b: Flow) -> bool:
    return [(r.space.width, r.repeat) for r in a.runs] == [(r.space.width, r.repeat) for r in b.runs]


def _pieces(flow: Flow) -> Pieces:
    return tuple(_piece(run.space.root(), run) for run in flow.runs)


def _piece(space: Space, run: Run) -> Piece:
    if not space.prunable and not (space.output and space.producers):
        return Piece(None, run.features, 1)
    return Piece(space.producers[0], space.width // space.block, space.block * run.repeat)


def _group(space: Space, consumers: dict[str, Consumer]) -> ChannelGroup:
    return ChannelGroup(
        space.producers[0],
        space.width // space.block,
        tuple(space.producers),
        tuple(dict.fromkeys(space.carriers)),
        tuple(consumers[node] for node in dict.fromkeys(space.consumers)),
        space.residual,
    )
