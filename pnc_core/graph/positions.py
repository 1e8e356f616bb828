"""Trace a network and find its positions.

A *position* is a node of the traced graph with two properties:

- All data flow through its tensor: no later node reads an earlier tensor (a dominator).
- A layer with weights lies between it and the next dominator, so norm, activation and pooling are already applied. The
  last feature map counts as well.

Own choice: the paper searches over positions; this definition works for any traced graph and needs no table of
architectures.
"""

import math
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pnc_core.config import NetworkSpec
from pnc_core.errors import NetworkError, PositionError, is_out_of_memory
from pnc_core.graph.axes import channel_axes, patch_grids
from pnc_core.graph.cost import count_macs
from pnc_core.graph.folding import folded
from pnc_core.graph.known_shapes import SizedTracer
from pnc_core.graph.tracing import Tracer, check_hooks, fake_tensors_silent, read_results

INPUT = "input"
BATCH = 7
"""Number of images N for which shapes are read. A first dimension of another length does not number the images; other
dimensions seldom have this length."""


@dataclass(frozen=True)
class PositionInfo:
    """One position of a network."""

    name: str
    """Dotted path of the module whose output this is; `input` for the image."""
    node: str
    """Name of the node in the traced graph."""
    shape: tuple[int, ...]
    """Shape of the tensor for one image, without the batch."""
    axis: int
    """Dimension of the batched tensor that holds the channels."""
    depth: float
    """Share of the network's weighted layers that lie before the position, 0..1."""
    patches: tuple[int, int] | None = None
    """For tokens: rows and columns of the patches, which are the last tokens; None if not known."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[self.axis - 1]

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape without batch and channels: (H, W), or (tokens,)."""
        return tuple(n for i, n in enumerate(self.shape) if i != self.axis - 1)

    @property
    def places(self) -> tuple[int, ...] | None:
        """Rows and columns of a map, or of the patches behind tokens; None if not known."""
        return self.grid if len(self.grid) == 2 else self.patches

    @property
    def leading(self) -> int:
        """Number of tokens before the patches: class and register tokens."""
        return 0 if self.places is None else math.prod(self.grid) - math.prod(self.places)


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced network. `graph_module` shares the network's own modules; re-parametrised layers are folded."""

    graph_module: fx.GraphModule
    spec: NetworkSpec
    positions: tuple[PositionInfo, ...]
    shapes: dict[str, tuple[int, ...]]
    """Batched shape (N = `BATCH`) of every tensor node, and of the copies that `cut` may insert."""
    changed: frozenset[str]
    """Tensor nodes whose tensor a later node changes in place."""

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters."""
        return _device(self.graph_module)

    @property
    def taps(self) -> tuple[PositionInfo, ...]:
        """All positions except `input`; heads pool their activations."""
        return tuple(p for p in self.positions if p.name != INPUT)

    @property
    def parameter_count(self) -> int:
        """Number of values in the network's parameters and buffers."""
        return sum(t.numel() for t in self.graph_module.state_dict().values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        image = torch.zeros(1, *self.spec.input_size, device=self.device)
        return count_macs(lambda: self.graph_module(image))

    def position(self, name: str) -> PositionInfo:
        """The position called `name`.

        Raises:
            PositionError: the network has no such position.
        """
        for info in self.positions:
            if info.name == name:
                return info
        raise PositionError(f"position: expected one of {[p.name for p in self.positions]}, got {name!r}")


_TRACING = threading.Lock()


@contextmanager
def _attributes_restored(network: nn.Module) -> Iterator[None]:
    """Restore all modules' attributes at the end.

    torch.fx stores constants in them, and a network's own code may store traced values.
    """
    holders = [h for m in network.modules() for h in (vars(m), *vars(m).values()) if isinstance(h, dict)]
    before = [(holder, dict(holder)) for holder in holders]
    lists = [(kept, [*kept]) for holder in holders for kept in holder.values() if isinstance(kept, list)]
    try:
        yield
    finally:
        for kept, items in lists:
            kept[:] = items
        for holder, old in before:
            for name in holder.keys() - old.keys():
                del holder[name]
            holder.update(old)


def trace(network: nn.Module, spec: NetworkSpec) -> Traced:
    """Trace a network and find its positions. Nothing of the network is changed.

    Args:
        network: A network in eval mode, on any device, including `meta`.
        spec: Its input size determines the shapes.

    Raises:
        NetworkError: the network is in train mode, has forward hooks where it is traced through, or cannot be traced.
    """
    if any(module.training for module in network.modules()):
        raise NetworkError("network: expected eval mode everywhere, got train mode; call .eval() first")
    check_hooks(network, "")
    _check_dtype(network)
    plain = folded(network)
    try:
        with _TRACING, fake_tensors_silent(), _attributes_restored(plain):
            graph_module = _graph(plain, spec)
            shapes, changed = _shapes(graph_module, spec)
    except NetworkError:
        raise
    except Exception as error:  # tracing runs the network's own code, which may raise any error
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise NetworkError(
            f"network: expected one torch.fx can trace, got {type(error).__name__}: {reason}; check that the network "
            f"takes images {spec.input_size}, and write that part of its forward with plain tensor operations"
        ) from error
    _check_logits(graph_module, shapes, spec)
    positions = _positions(graph_module, shapes)
    return Traced(graph_module, spec, positions, shapes | {copy_name(n): shapes[n] for n in changed}, changed)


def _graph(network: nn.Module, spec: NetworkSpec) -> fx.GraphModule:
    """The traced graph; its shapes are constants only where the network's code computes with shapes."""
    try:
        return _traced_with(Tracer(), network)
    except Exception as error:  # the network's own code may raise any error on a value that is not known
        if isinstance(error, NetworkError) or is_out_of_memory(error):
            raise
    return _traced_with(SizedTracer(spec, _device(network)), network)


def _traced_with(tracer: Tracer, network: nn.Module) -> fx.GraphModule:
    with _attributes_restored(network):
        graph = tracer.trace(network)
        read_results(graph)
        return fx.GraphModule(tracer.root, graph, type(network).__name__)


class _ShapeReader(fx.Interpreter):
    """Runs a graph and records the shape of every tensor, and which tensors are changed in place later."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.unread: list[str] = []
        """Nodes that change a tensor in place, and whose result the logits do not use."""
        self._made: dict[str, tuple[Tensor, int]] = {}
        self._read = ancestors([n for n in graph_module.graph.nodes if n.op == "output"])

    def run_node(self, n: fx.Node) -> Any:
        lost = n not in self._read
        before = self.changed if lost else frozenset()
        value = super().run_node(n)
        if lost and any(arg.name in self.changed - before for arg in n.all_input_nodes):
            self.unread.append(n.name)
        if isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape)
            if not value.is_inference():  # a parameter may be an inference tensor, which has no version counter
                self._made[n.name] = value, value._version
        return value

    def call_module(self, target: fx.node.Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer, x = self.fetch_attr(str(target)), args[0] if len(args) == 1 and not kwargs else None
        if isinstance(x, Tensor) and _keeps_the_shape(layer, x):
            return torch.empty_like(x)  # batch norms of fake tensors take half the time of a trace
        return super().call_module(target, args, kwargs)

    @property
    def changed(self) -> frozenset[str]:
        """Nodes whose tensor was changed after they made it. torch counts changes, including those through views."""
        return frozenset(name for name, (value, version) in self._made.items() if value._version != version)


def _keeps_the_shape(layer: nn.Module, x: Tensor) -> bool:
    """Whether a layer is a plain batch norm that takes this tensor."""
    plain = type(layer) is nn.BatchNorm2d and not (layer._forward_hooks or layer._forward_pre_hooks)
    return plain and x.ndim == 4 and x.shape[1] == layer.num_features


def _shapes(graph_module: fx.GraphModule, spec: NetworkSpec) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """Batched shape (N = `BATCH`) of every tensor node, and the nodes whose tensor is changed in place.

    Fake tensors are used: they need no computation and no memory.
    """
    reader = _ShapeReader(graph_module)
    with torch.inference_mode(False), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        reader.run(torch.zeros(BATCH, *spec.input_size, device=_device(graph_module)), enable_io_processing=False)
    if reader.unread:
        raise NetworkError(
            "network: expected in-place operations whose result is used, got "
            f"{reader.unread[0]!r}, whose result nothing reads; write x = f(x) in place of f(x)"
        )
    return reader.shapes, reader.changed


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def ancestors(roots: list[fx.Node], stop: fx.Node | None = None) -> set[fx.Node]:
    """The roots and all nodes that they depend on; the search does not go beyond `stop`."""
    found: set[fx.Node] = set()
    todo = list(roots)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend([] if node is stop else node.all_input_nodes)
    return found


def _check_dtype(network: nn.Module) -> None:
    other = next(
        (t.dtype for t in network.state_dict().values() if t.is_floating_point() and t.dtype != torch.float32), None
    )
    if other is not None:
        raise NetworkError(f"network: expected float32 weights, got {other}; call .float() first")


def _check_logits(graph_module: fx.GraphModule, shapes: dict[str, tuple[int, ...]], spec: NetworkSpec) -> None:
    output = next(n for n in graph_module.graph.nodes if n.op == "output").args[0]
    shape = shapes.get(output.name) if isinstance(output, fx.Node) else None
    if shape != (BATCH, len(spec.classes)):
        raise NetworkError(
            f"network: expected logits ({BATCH}, {len(spec.classes)}) for {BATCH} images, got {shape}; check classes"
        )


def data_nodes(graph: fx.Graph) -> list[fx.Node]:
    """Nodes that depend on the network's input, in graph order, without the output node."""
    seen: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(arg in seen for arg in node.all_input_nodes):
            seen.add(node)
    return [n for n in graph.nodes if n in seen and n.op != "output"]


def _dominators(graph: fx.Graph) -> list[fx.Node]:
    """Nodes after which no later node reads the value of an earlier node."""
    nodes = data_nodes(graph)
    index = {node: i for i, node in enumerate(nodes)}
    last_use = [max([index.get(user, len(nodes)) for user in node.users], default=i) for i, node in enumerate(nodes)]
    found, last_read = [], 0
    for i, node in enumerate(nodes):
        if last_read <= i and last_use[i] > i:
            found.append(node)
        last_read = max(last_read, last_use[i])
    return found


def _positions(graph_module: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> tuple[PositionInfo, ...]:
    nodes = data_nodes(graph_module.graph)
    index = {node: i for i, node in enumerate(nodes)}
    weighted = [is_weighted(graph_module, node) for node in nodes]
    axes = channel_axes(graph_module, shapes)
    dominators = _without_global_pooling(
        [n for n in _dominators(graph_module.graph) if len(shape := shapes.get(n.name, ())) >= 3 and shape[0] == BATCH],
        lambda a, b: any(weighted[index[a] + 1 : index[b] + 1]),
        lambda n: math.prod(s for i, s in enumerate(shapes[n.name]) if i not in (0, axes[n.name])),
    )
    # The input stands for what the network does to the image before its first layer, such as padding.
    first = next((i for i, node in enumerate(dominators) if i and any(weighted[: index[node] + 1])), len(dominators))
    if dominators and dominators[0].op == "placeholder":
        dominators = dominators[:1] + dominators[first:]
    ends = [index[n] for n in dominators[1:]] + [len(nodes) - 1]
    names, patches = Names(), patch_grids(graph_module, shapes, axes)
    found = []
    for i, (node, end) in enumerate(zip(dominators, ends, strict=True)):
        following = dominators[i + 1] if i + 1 < len(dominators) else None
        if following is None or any(weighted[index[node] + 1 : end + 1]):
            depth = sum(weighted[: index[node] + 1]) / max(1, sum(weighted))
            name = names.unique(INPUT if node.op == "placeholder" else position_name(node, following))
            shape, axis = shapes[node.name][1:], axes[node.name]
            found.append(PositionInfo(name, node.name, shape, axis, depth, patches.get(node.name)))
    return tuple(found)


def _without_global_pooling(
    dominators: list[fx.Node], weighted_between: Callable[[fx.Node, fx.Node], bool], cells: Callable[[fx.Node], int]
) -> list[fx.Node]:
    """Drop a dominator of one cell that only pools the dominator before it, without weights between them."""
    kept: list[fx.Node] = []
    for node in dominators:
        if not (kept and cells(node) == 1 < cells(kept[-1]) and not weighted_between(kept[-1], node)):
            kept.append(node)
    return kept


def is_weighted(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Does this node have a weight of rank two or more, as convolution, linear layer and attention do?"""
    if node.op == "call_module":
        return any(p.ndim >= 2 for p in graph_module.get_submodule(str(node.target)).parameters())
    if node.op in ("call_function", "call_method"):
        return any(_attribute_rank(graph_module, arg) >= 2 for arg in node.all_input_nodes if arg.op == "get_attr")
    return False


def _attribute_rank(graph_module: fx.GraphModule, node: fx.Node) -> int:
    value = operator.attrgetter(str(node.target))(graph_module)
    return value.ndim if isinstance(value, nn.Parameter) else 0


def copy_name(name: str) -> str:
    """Name of the node that copies the tensor of node `name`."""
    return f"{name}_copy"


class Names:
    """Makes names unique by numbering repeated names."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """`name` the first time, then `name#2` and so on."""
        count = self._used[name] = self._used.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"


def position_name(node: fx.Node, following: fx.Node | None) -> str:
    """Name of a position: the innermost container module that ends at `node`, else its leaf module, else the node.

    Args:
        node: The position's node in the traced graph.
        following: The next dominator, if there is one.
    """
    stack = [path for path in _stack(node) if path]
    later = set(_stack(following)) if following is not None else set()
    ended = [path for path in stack if path not in later and path != node.target]
    if ended:
        return ended[-1]
    return str(node.target) if node.op == "call_module" else node.name


def _stack(node: fx.Node) -> list[str]:
    return [entry[0] for entry in node.meta.get("nn_module_stack", {}).values()]
