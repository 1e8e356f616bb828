"""Channel groups of a source tail: channels that must be kept or removed together.

The graph is read once, abstractly: every tensor carries *spaces* of channels, one
or, after a concatenation, several in a row. A convolution or linear layer reads
spaces and makes a new one; norms, activations, pooling and convolutions of separate groups
carry spaces through; additions and products unite spaces; whatever is not known
freezes the spaces it touches. What is left unfrozen can be masked at its
consumers' inputs, which is the same as removing it physically, on every
architecture torch.fx can trace.

References:
    Own choice. Dependency graphs for structural pruning are known (Fang et al.,
    "DepGraph", CVPR 2023); this one is small because it may give up (freeze).
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
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
CARRYING_NAMES = {"StochasticDepth", "stochastic_depth"}
"""Of torchvision, which is not imported here: nothing happens in eval mode."""
ADDING = {operator.add, operator.iadd, torch.add, "add", "add_"}
MULTIPLYING = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
CHANNELLESS = {"ndim", "dtype", "device"}
"""Attributes of a tensor that do not depend on how many channels it has."""


@dataclass(frozen=True)
class Piece:
    """A run of neighbouring features."""

    group: str | None
    """Name of the group whose channels they are; None if they must stay."""
    width: int
    """How many channels of the group."""
    repeat: int
    """How many neighbouring features belong to one channel, as after a flatten."""


Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """What the rows and columns of a module's tensors are; empty where nothing can be removed."""

    inputs: Pieces = ()
    outputs: Pieces = ()


@dataclass(frozen=True)
class Consumer:
    """A layer that reads channels."""

    node: str
    module: str
    axis: int
    """Dimension of the layer's input that holds the channels."""
    pieces: Pieces
    """What it reads along this dimension."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together, named after the layer that makes them."""

    name: str
    width: int
    """How many can be removed one by one; behind a grouped convolution each is a whole group of its channels."""
    producers: tuple[str, ...]
    """Modules whose output channels they are."""
    carriers: tuple[str, ...]
    """Batch norms and convolutions of separate groups that pass them on."""
    consumers: tuple[Consumer, ...]
    residual: bool
    """United by an addition: a residual stream rather than a block's inner channels."""


@dataclass(eq=False)
class _Space:
    width: int
    block: int = 1
    """So many neighbouring channels live and die together."""
    producers: list[str] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    """Names of nodes."""
    frozen: bool = False
    residual: bool = False
    output: bool = False
    parent: "_Space | None" = None

    def root(self) -> "_Space":
        space = self
        while space.parent is not None:
            space = space.parent
        return space

    @property
    def prunable(self) -> bool:
        return bool(self.producers and self.consumers) and not self.frozen and not self.output


@dataclass(frozen=True)
class _Run:
    space: _Space
    repeat: int = 1

    @property
    def features(self) -> int:
        return self.space.width * self.repeat


@dataclass(frozen=True)
class _Flow:
    """A tensor's channels: which spaces follow each other along which dimension."""

    runs: tuple[_Run, ...]
    axis: int

    @property
    def features(self) -> int:
        return sum(run.features for run in self.runs)

    @property
    def spaces(self) -> "Iterator[_Space]":
        return (run.space.root() for run in self.runs)

    def repeated(self, times: int) -> "_Flow":
        return _Flow(tuple(_Run(run.space, run.repeat * times) for run in self.runs), self.axis)


@dataclass(frozen=True)
class Channels:
    """What the reading of one graph found."""

    groups: tuple[ChannelGroup, ...]
    """Groups that may be pruned."""
    logits: ChannelGroup | None
    """The producer of the logits, whose rows are the classes; None if they cannot be told apart."""
    layouts: dict[str, Layout]
    """By module: where its tensors hold which group's channels."""
    pieces: dict[str, Pieces]
    """By tensor node: what lies along its channel dimension."""


def channel_groups(
    graph_module: fx.GraphModule,
    shapes: dict[str, tuple[int, ...]],
    logits: fx.Node,
    axes: Mapping[str, int] | None = None,
) -> Channels:
    """Find the channel groups of a graph.

    Args:
        graph_module: A traced network or a tail made by `positions.cut`.
        shapes: Batched shape of every tensor node, by name.
        logits: The node whose last dimension is the classes.
        axes: Channel dimension of every tensor node; of a tail, as they are in the whole
            network, since a tail's input does not show its own. Read off the graph by default.
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
        self.flows: dict[str, _Flow] = {}
        self.inputs: dict[str, _Flow] = {}
        self.outputs: dict[str, _Flow] = {}
        self.readers: dict[str, tuple[str, _Flow]] = {}
        self.spaces: list[_Space] = []
        self.shared = _shared_modules(graph_module.graph)

    def read(self, node: fx.Node) -> None:
        """Give the node's tensor a flow."""
        if node.name not in self.shapes:
            if not (node.target is getattr and node.args[1] in CHANNELLESS):
                self._freeze_inputs(node)
            return
        flow = self._module(node) if node.op == "call_module" else self._function(node)
        if flow is None:
            self._freeze_inputs(node)
            axis = self.axes[node.name]
            flow = _Flow((_Run(self._space(self.shapes[node.name][axis], frozen=True)),), axis)
        self.flows[node.name] = flow

    def _module(self, node: fx.Node) -> _Flow | None:
        name = str(node.target)
        module = self.graph_module.get_submodule(name)
        if name in self.shared and any(True for _ in module.parameters()):
            return None
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            return self._layer(node, (module.in_channels, 1), (module.out_channels, 1))
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

    def _layer(self, node: fx.Node, reads: tuple[int, int], makes: tuple[int, int]) -> _Flow:
        """A layer that reads every channel for every channel it makes; both as (width, axis).

        What it makes is its own even where what it reads is not understood.
        """
        name, flow = str(node.target), self._input(node)
        if flow is not None and (flow.features, flow.axis) == reads:
            self.inputs[name] = flow
            self.readers[node.name] = (name, flow)
            for space in flow.spaces:
                space.consumers.append(node.name)
        else:
            self._freeze_inputs(node)
        space = self._space(makes[0])
        space.producers.append(name)
        self.outputs[name] = _Flow((_Run(space),), makes[1])
        return self.outputs[name]

    def _grouped(self, name: str, module: nn.Conv2d, flow: _Flow) -> _Flow | None:
        """A convolution of separate groups passes channels on, each group as one; depthwise is the finest case."""
        size, several = module.in_channels // module.groups, module.out_channels % module.in_channels == 0
        if flow.axis != 1 or flow.features != module.in_channels or not several:
            return None
        if size > 1:
            if len(flow.runs) > 1 or flow.runs[0].repeat > 1:
                return None
            space = next(flow.spaces)
            space.block = math.lcm(space.block, size)
        return self._carry(name, flow.repeated(module.out_channels // module.in_channels))

    def _carry(self, name: str, flow: _Flow) -> _Flow:
        for space in flow.spaces:
            space.carriers.append(name)
        self.outputs[name] = flow
        return flow

    def _function(self, node: fx.Node) -> _Flow | None:
        if node.op == "placeholder":
            return None
        if node.target in ADDING or node.target in MULTIPLYING:
            return self._unite(node, added=node.target in ADDING)
        if node.target is torch.cat:
            return self._concatenate(node)
        if node.target is F.batch_norm:
            return self._batch_norm(node)
        flow = self._input(node)
        if flow is None:
            return None
        name = str(getattr(node.target, "__name__", node.target))
        if node.target in CARRYING_FUNCTIONS or name in CARRYING_NAMES:
            return flow if flow.axis == 1 or "pool" not in name else None
        if node.target in (torch.flatten, "flatten") and node.args[1:] == (1,):
            return self._flatten(node, flow)
        is_mean = node.target in (torch.mean, "mean") and len(self.shapes[node.name]) == 2
        return flow if is_mean and flow.axis == 1 and node.args[1:] in (([2, 3],), ((2, 3),)) else None

    def _batch_norm(self, node: fx.Node) -> _Flow | None:
        """Of a module that was traced through: its tensors are attributes."""
        flow = self.flows.get(node.all_input_nodes[0].name)
        owners = {str(a.target).rpartition(".")[0] for a in node.all_input_nodes[1:] if a.op == "get_attr"}
        known = len(owners) == 1 and len([a for a in node.all_input_nodes if a.op != "get_attr"]) == 1
        return self._carry(owners.pop(), flow) if flow is not None and flow.axis == 1 and known else None

    def _flatten(self, node: fx.Node, flow: _Flow) -> _Flow | None:
        before = self.shapes[node.all_input_nodes[0].name]
        if flow.axis != 1 or any(run.repeat != 1 for run in flow.runs) or len(before) < 2:
            return None
        return flow.repeated(math.prod(before[2:]))

    def _concatenate(self, node: fx.Node) -> _Flow | None:
        tensors, dim = node.args[0], node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if not isinstance(tensors, list | tuple) or not isinstance(dim, int):
            return None
        flows = [self.flows.get(t.name) for t in tensors if isinstance(t, fx.Node)]
        axis = dim % len(self.shapes[node.name])
        if len(flows) != len(tensors) or any(flow is None or flow.axis != axis for flow in flows):
            return None
        return _Flow(tuple(run for flow in flows if flow is not None for run in flow.runs), axis)

    def _unite(self, node: fx.Node, *, added: bool) -> _Flow | None:
        flows = [self.flows.get(a.name) for a in node.all_input_nodes]
        first = flows[0]
        if len(node.args) != 2 or first is None or not all(isinstance(a, fx.Node) for a in node.args):
            return None
        for other in flows[1:]:
            if other is None or other.axis != first.axis or not _alike(first, other):
                return None
        for other in flows:
            for a, b in zip(first.runs, other.runs if other else (), strict=True):
                self._merge(a.space.root(), b.space.root(), added=added)
        return first

    def _merge(self, a: _Space, b: _Space, *, added: bool) -> None:
        a.residual |= added or b.residual
        if a is b:
            return
        for name in ("producers", "carriers", "consumers"):
            getattr(a, name).extend(getattr(b, name))
        a.frozen |= b.frozen
        a.block = math.lcm(a.block, b.block)
        b.parent = a

    def _space(self, width: int, *, frozen: bool = False) -> _Space:
        space = _Space(width, frozen=frozen)
        self.spaces.append(space)
        return space

    def _input(self, node: fx.Node) -> _Flow | None:
        inputs = [a for a in node.all_input_nodes if a.op != "get_attr"]
        return self.flows.get(inputs[0].name) if len(inputs) == 1 else None

    def _freeze_inputs(self, node: fx.Node) -> None:
        for argument in node.all_input_nodes:
            if argument.name in self.flows:
                for space in self.flows[argument.name].spaces:
                    space.frozen = True

    def result(self, logits: fx.Node) -> Channels:
        flow = self.flows[logits.name]
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


def _shared_modules(graph: fx.Graph) -> set[str]:
    """Modules that are called more than once, or whose tensors are also read on their own."""
    targets = [str(n.target) for n in graph.nodes if n.op == "call_module"]
    owners = {str(n.target).rpartition(".")[0] for n in graph.nodes if n.op == "get_attr"}
    return {t for t in targets if targets.count(t) > 1 or t in owners}


def _carries(module: nn.Module, flow: _Flow) -> bool:
    spatial = "Pool" in type(module).__name__ or isinstance(module, nn.Dropout2d)
    carries = isinstance(module, CARRYING_MODULES) or type(module).__name__ in CARRYING_NAMES
    return carries and (flow.axis == 1 or not spatial)


def _alike(a: _Flow, b: _Flow) -> bool:
    return [(r.space.width, r.repeat) for r in a.runs] == [(r.space.width, r.repeat) for r in b.runs]


def _pieces(flow: _Flow) -> Pieces:
    return tuple(_piece(run.space.root(), run) for run in flow.runs)


def _piece(space: _Space, run: _Run) -> Piece:
    if not space.prunable and not (space.output and space.producers):
        return Piece(None, run.features, 1)
    return Piece(space.producers[0], space.width // space.block, space.block * run.repeat)


def _group(space: _Space, consumers: dict[str, Consumer]) -> ChannelGroup:
    return ChannelGroup(
        space.producers[0],
        space.width // space.block,
        tuple(space.producers),
        tuple(dict.fromkeys(space.carriers)),
        tuple(consumers[node] for node in dict.fromkeys(space.consumers)),
        space.residual,
    )


def features(pieces: Pieces, sizes: Mapping[str, int]) -> int:
    """How many features are left with `sizes[group]` channels of each group; groups not named stay whole."""
    return sum((p.width if p.group is None else sizes.get(p.group, p.width)) * p.repeat for p in pieces)


def parameter_count(part: nn.Module, layouts: Mapping[str, Layout], sizes: Mapping[str, int]) -> int:
    """How many numbers `part` would hold with `sizes[group]` channels left of each group.

    Exact: a tensor shrinks along its rows and its columns.
    """
    counts = {name: tensor.numel() for name, tensor in part.state_dict().items()}
    for path, layout in layouts.items():
        for side, tensors in ((layout.inputs, ("weight",)), (layout.outputs, TENSORS)):
            if any(p.group in sizes for p in side):
                whole, left = features(side, {}), features(side, sizes)
                for name in (f"{path}.{t}" for t in tensors):
                    if name in counts:
                        counts[name] = counts[name] * left // whole
    return sum(counts.values())


TENSORS = ("weight", "bias", "running_mean", "running_var")
"""Tensors whose rows are a module's outputs."""


def remove_channels(part: nn.Module, layouts: Mapping[str, Layout], kept: Mapping[str, Tensor]) -> None:
    """Physically remove all channels but `kept`; `part` is changed in place.

    Args:
        part: Owns the modules; its kept numbers stay bit for bit.
        layouts: As `channel_groups` found them in `part`.
        kept: int64 (k,) indices of the channels that stay, by group; groups not named stay whole.
    """
    for path, layout in layouts.items():
        module = part.get_submodule(path)
        if any(p.group in kept for p in layout.inputs):
            _slice(module, ("weight",), kept_features(layout.inputs, kept), 1)
        if any(p.group in kept for p in layout.outputs):
            _slice(module, TENSORS, kept_features(layout.outputs, kept), 0)
        _set_widths(module)


def kept_features(pieces: Pieces, kept: Mapping[str, Tensor]) -> Tensor:
    """Which features stay, int64 in order, when these channels of each group do; groups not named stay whole."""
    found, start = [], 0
    for piece in pieces:
        channels = torch.arange(piece.width) if piece.group is None else kept.get(piece.group)
        channels = torch.arange(piece.width) if channels is None else channels.cpu()
        found.append(start + (channels[:, None] * piece.repeat + torch.arange(piece.repeat)).reshape(-1))
        start += piece.width * piece.repeat
    return torch.cat(found)


def _set_widths(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(module.running_mean if module.weight is None else module.weight)
    elif isinstance(module, nn.Conv2d):
        rows, size = module.weight.shape[:2]
        # Groups are removed whole, so that each still makes as many rows as before.
        module.groups = module.groups * rows // module.out_channels if module.groups > 1 else 1
        module.out_channels, module.in_channels = rows, size * module.groups


def _slice(module: nn.Module, names: Iterable[str], kept: Tensor, axis: int) -> None:
    for name in names:
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor):
            piece = tensor.detach().index_select(axis, kept.to(tensor.device))
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, name, nn.Parameter(piece, requires_grad=False) if is_parameter else piece)
