"""Channel groups of a source tail: channels that must be kept or removed together.

The graph is read once, abstractly: every tensor carries a *space* of channels.
A convolution or linear layer consumes one space and produces another; norms,
activations, pooling and depthwise convolutions carry a space through; additions
and products unite spaces; whatever is not known freezes the spaces it touches.
What is left unfrozen can be masked at its consumers' inputs, which is the same
as removing it physically, on every architecture torch.fx can trace.

References:
    Own choice. Dependency graphs for structural pruning are known (Fang et al.,
    "DepGraph", CVPR 2023); this one is small because it may give up (freeze).
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pnc_core.positions import channel_axes, data_nodes

CARRYING_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU,
    nn.Dropout, nn.Dropout2d, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
CARRYING_FUNCTIONS: set[Callable[..., object] | str] = {
    F.relu, F.relu6, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.dropout, F.max_pool2d, F.avg_pool2d,
    F.adaptive_avg_pool2d, torch.relu, torch.sigmoid, torch.tanh, "relu", "sigmoid", "contiguous",
}  # fmt: skip
ADDING = {operator.add, operator.iadd, torch.add, "add", "add_"}
MULTIPLYING = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}


@dataclass(frozen=True)
class Consumer:
    """A layer that reads a group's channels."""

    node: str
    module: str
    axis: int
    """Dimension of the layer's input that holds the channels."""
    repeat: int
    """How many neighbouring input features belong to one channel (after a flatten)."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together, named after the layer that makes them."""

    name: str
    width: int
    producers: tuple[str, ...]
    """Modules whose output channels they are."""
    carriers: tuple[str, ...]
    """BatchNorm and depthwise convolutions that pass them on."""
    consumers: tuple[Consumer, ...]
    residual: bool
    """United by an addition: a residual stream rather than a block's inner channels."""


@dataclass
class _Space:
    width: int
    producers: list[str] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    frozen: bool = False
    residual: bool = False
    output: bool = False
    parent: "_Space | None" = None

    def root(self) -> "_Space":
        space = self
        while space.parent is not None:
            space = space.parent
        return space


@dataclass(frozen=True)
class _Flow:
    """A tensor's channels: which space, along which dimension, repeated how often."""

    space: _Space
    axis: int
    repeat: int = 1


@dataclass(frozen=True)
class Channels:
    """What the reading of one graph found."""

    groups: tuple[ChannelGroup, ...]
    """Groups that may be pruned."""
    logits: ChannelGroup | None
    """The producer of the logits, whose rows are the classes; None if they cannot be told apart."""
    group_of: dict[str, str]
    """For a tensor node: name of the prunable group whose channels it holds."""


def channel_groups(graph_module: fx.GraphModule, shapes: dict[str, tuple[int, ...]], logits: fx.Node) -> Channels:
    """Find the channel groups of a graph.

    Args:
        graph_module: A traced network or a tail made by `positions.cut`.
        shapes: Batched shape of every tensor node, by name.
        logits: The node whose last dimension is the classes.
    """
    reader = _Reader(graph_module, shapes)
    for node in data_nodes(graph_module.graph):
        reader.read(node)
    return reader.result(logits)


class _Reader:
    def __init__(self, graph_module: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> None:
        self.graph_module, self.shapes = graph_module, shapes
        self.axes = channel_axes(graph_module, shapes)
        self.flows: dict[str, _Flow] = {}
        self.spaces: list[_Space] = []
        targets = [str(n.target) for n in graph_module.graph.nodes if n.op == "call_module"]
        self.reused = {t for t in targets if targets.count(t) > 1}

    def read(self, node: fx.Node) -> None:
        """Give the node's tensor a flow."""
        if node.name not in self.shapes:
            self._freeze_inputs(node)
            return
        flow = self._module(node) if node.op == "call_module" else self._function(node)
        if flow is None:
            self._freeze_inputs(node)
            axis = self.axes[node.name]
            flow = _Flow(self._space(self.shapes[node.name][axis], frozen=True), axis)
        flow.space.root().nodes.append(node.name)
        self.flows[node.name] = flow

    def _module(self, node: fx.Node) -> _Flow | None:
        name = str(node.target)
        module = self.graph_module.get_submodule(name)
        flow = self._input(node)
        if flow is None or (name in self.reused and any(True for _ in module.parameters())):
            return None
        if isinstance(module, nn.Conv2d):
            return self._convolution(node, module, flow)
        if isinstance(module, nn.Linear):
            whole = flow.space.width * flow.repeat == module.in_features
            if not whole or flow.axis != len(self._input_shape(node)) - 1:
                return None
            return self._layer(node, flow, module.out_features, len(self.shapes[node.name]) - 1)
        if isinstance(module, nn.BatchNorm2d) and flow.axis == 1:
            flow.space.root().carriers.append(name)
            return flow
        if isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1:
            return self._flatten(node, flow)
        return flow if self._carries(module, flow) else None

    def _convolution(self, node: fx.Node, module: nn.Conv2d, flow: _Flow) -> _Flow | None:
        if flow.axis != 1 or flow.repeat != 1:
            return None
        if module.groups == 1:
            return self._layer(node, flow, module.out_channels, 1)
        if module.groups == module.in_channels == module.out_channels:
            flow.space.root().carriers.append(str(node.target))
            return flow
        return None

    def _layer(self, node: fx.Node, flow: _Flow, width: int, axis: int) -> _Flow:
        name = str(node.target)
        flow.space.root().consumers.append(Consumer(node.name, name, flow.axis, flow.repeat))
        space = self._space(width)
        space.producers.append(name)
        return _Flow(space, axis)

    def _carries(self, module: nn.Module, flow: _Flow) -> bool:
        spatial = "Pool" in type(module).__name__ or isinstance(module, nn.Dropout2d)
        carries = isinstance(module, CARRYING_MODULES) or type(module).__name__ == "StochasticDepth"
        return carries and (flow.axis == 1 or not spatial)

    def _function(self, node: fx.Node) -> _Flow | None:
        if node.op == "placeholder":
            return None
        if node.target in ADDING or node.target in MULTIPLYING:
            return self._unite(node, added=node.target in ADDING)
        flow = self._input(node)
        if flow is None:
            return None
        if node.target in CARRYING_FUNCTIONS:
            spatial = "pool" in str(getattr(node.target, "__name__", node.target))
            return flow if flow.axis == 1 or not spatial else None
        if node.target in (torch.flatten, "flatten") and node.args[1:] == (1,):
            return self._flatten(node, flow)
        is_mean = node.target in (torch.mean, "mean") and len(self.shapes[node.name]) == 2
        return flow if is_mean and flow.axis == 1 and node.args[1:] in (([2, 3],), ((2, 3),)) else None

    def _flatten(self, node: fx.Node, flow: _Flow) -> _Flow | None:
        before = self._input_shape(node)
        if flow.axis != 1 or flow.repeat != 1 or len(before) < 2:
            return None
        return _Flow(flow.space, 1, math.prod(before[2:]))

    def _unite(self, node: fx.Node, *, added: bool) -> _Flow | None:
        flows = [self.flows.get(a.name) for a in node.all_input_nodes]
        first = flows[0]
        if len(node.args) != 2 or first is None or not all(isinstance(a, fx.Node) for a in node.args):
            return None
        for other in flows[1:]:
            if other is None or (other.axis, other.repeat) != (first.axis, first.repeat):
                return None
            if other.space.root().width != first.space.root().width:
                return None
            self._merge(first.space.root(), other.space.root(), added=added)
        return first

    def _merge(self, a: _Space, b: _Space, *, added: bool) -> None:
        a.residual |= added or b.residual
        if a is b:
            return
        for name in ("producers", "carriers", "consumers", "nodes"):
            getattr(a, name).extend(getattr(b, name))
        a.frozen |= b.frozen
        b.parent = a

    def _space(self, width: int, *, frozen: bool = False) -> _Space:
        space = _Space(width, frozen=frozen)
        self.spaces.append(space)
        return space

    def _input(self, node: fx.Node) -> _Flow | None:
        inputs = [a for a in node.all_input_nodes if a.op != "get_attr"]
        return self.flows.get(inputs[0].name) if len(inputs) == 1 else None

    def _input_shape(self, node: fx.Node) -> tuple[int, ...]:
        return self.shapes[node.all_input_nodes[0].name]

    def _freeze_inputs(self, node: fx.Node) -> None:
        for argument in node.all_input_nodes:
            if argument.name in self.flows:
                self.flows[argument.name].space.root().frozen = True

    def result(self, logits: fx.Node) -> Channels:
        flow = self.flows[logits.name]
        last = flow.space.root()
        last.output = True
        groups = [_group(s) for s in self._roots() if s.producers and s.consumers and not s.frozen and not s.output]
        names = {g.name for g in groups}
        group_of = {
            n: s.producers[0] for s in self._roots() for n in s.nodes if s.producers and s.producers[0] in names
        }
        separable = last.producers and not last.consumers and not last.frozen and flow.repeat == 1
        return Channels(tuple(groups), _group(last) if separable else None, group_of)

    def _roots(self) -> Iterator[_Space]:
        return (s for s in self.spaces if s.parent is None)


def _group(space: _Space) -> ChannelGroup:
    return ChannelGroup(
        space.producers[0],
        space.width,
        tuple(space.producers),
        tuple(dict.fromkeys(space.carriers)),
        tuple(space.consumers),
        space.residual,
    )


def parameter_count(part: nn.Module, groups: Iterable[ChannelGroup], kept: dict[str, int]) -> int:
    """How many numbers `part` would hold with `kept[group]` channels left of each group.

    Exact: a tensor shrinks by k / width for every group along one of its axes.
    """
    counts = {name: tensor.numel() for name, tensor in part.state_dict().items()}
    for group in groups:
        for name in _tensors_of(part, group):
            counts[name] = counts[name] * kept[group.name] // group.width
    return sum(counts.values())


def _tensors_of(part: nn.Module, group: ChannelGroup) -> Iterator[str]:
    """Names of the tensors that hold the group's channels along one axis, once for each."""
    for path in (*group.producers, *group.carriers):
        for name, tensor in part.get_submodule(path).state_dict().items():
            if tensor.ndim > 0:
                yield f"{path}.{name}"
    for consumer in group.consumers:
        yield f"{consumer.module}.weight"


def remove_channels(part: nn.Module, group: ChannelGroup, kept: Tensor) -> None:
    """Physically remove all channels of a group but `kept`; `part` is changed in place.

    Args:
        part: Owns the group's modules; its kept numbers stay bit for bit.
        group: One of the groups of `part`.
        kept: int64 (k,), ascending indices of the channels that stay.
    """
    for name in group.producers:
        _slice_outputs(part.get_submodule(name), kept)
    for name in group.carriers:
        _slice_carrier(part.get_submodule(name), kept)
    for consumer in group.consumers:
        offsets = torch.arange(consumer.repeat)
        _slice_inputs(part.get_submodule(consumer.module), (kept[:, None] * consumer.repeat + offsets).reshape(-1))


def _slice_outputs(module: nn.Module, kept: Tensor) -> None:
    _slice(module, ("weight", "bias"), kept, 0)
    width = "out_channels" if isinstance(module, nn.Conv2d) else "out_features"
    setattr(module, width, len(kept))


def _slice_inputs(module: nn.Module, kept: Tensor) -> None:
    _slice(module, ("weight",), kept, 1)
    setattr(module, "in_channels" if isinstance(module, nn.Conv2d) else "in_features", len(kept))


def _slice_carrier(module: nn.Module, kept: Tensor) -> None:
    if isinstance(module, nn.BatchNorm2d):
        _slice(module, ("weight", "bias", "running_mean", "running_var"), kept, 0)
        module.num_features = len(kept)
    elif isinstance(module, nn.Conv2d):
        _slice(module, ("weight", "bias"), kept, 0)
        module.groups = module.in_channels = module.out_channels = len(kept)


def _slice(module: nn.Module, names: tuple[str, ...], kept: Tensor, axis: int) -> None:
    for name in names:
        tensor = getattr(module, name)
        if isinstance(tensor, Tensor):
            piece = tensor.detach().index_select(axis, kept.to(tensor.device))
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, name, nn.Parameter(piece, requires_grad=False) if is_parameter else piece)
