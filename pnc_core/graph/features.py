"""Run a traced network, or its part behind a position, and return activations at positions."""

from collections.abc import Iterable, Sequence

from torch import Tensor, fx

from pnc_core.errors import PositionError
from pnc_core.graph.positions import INPUT, Traced, ancestors, copy_name


def cut(traced: Traced, start: str, taps: Sequence[str], *, logits: bool = True) -> fx.GraphModule:
    """Cut the part of a network behind a position; the part also returns activations.

    Networks may change tensors in place, directly or through a view. The part applies such changes to copies. So the
    caller's input stays unchanged, and a tap's activation does not depend on the other outputs.

    Args:
        traced: The network. Its modules are shared, not copied, and not changed.
        start: Position that becomes the input; `input` keeps the whole network.
        taps: Positions behind `start` whose activations the part returns.
        logits: Also compute the logits; if False, the part ends at the last tap.

    Returns:
        A graph module: activation at `start` -> (logits or None, tuple of the taps' activations).

    Raises:
        PositionError: a name is not a position, or a tap lies before `start`.
    """
    image = next(n for n in traced.graph_module.graph.nodes if n.op == "placeholder")
    begin = image if start == INPUT else _node(traced, traced.position(start).node)
    tapped = [_node(traced, traced.position(name).node) for name in taps]
    output = next(n for n in traced.graph_module.graph.nodes if n.op == "output")
    needed = ancestors([*([output] if logits else []), *tapped], begin)
    spared = {n for n in (begin, *tapped) if n.name in traced.changed and not needed.isdisjoint(n.users)}
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {begin: graph.placeholder(begin.name)}
    read = {begin: _copied(graph, made[begin]) if begin in spared else made[begin]}
    for node in traced.graph_module.graph.nodes:
        if node in needed and node is not begin and node is not output:
            if node.op == "placeholder":
                raise PositionError(f"taps: expected positions behind {start!r}, got {list(taps)}")
            made[node] = graph.node_copy(node, read.__getitem__)
            read[node] = _copied(graph, made[node]) if node in spared else made[node]
    graph.output((read[output.args[0]] if logits else None, tuple(made[n] for n in tapped)))
    return fx.GraphModule(traced.graph_module, graph)


def _copied(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.create_node("call_method", "clone", (node,), name=copy_name(node.name))


def _node(traced: Traced, name: str) -> fx.Node:
    nodes: Iterable[fx.Node] = traced.graph_module.graph.nodes
    return next(n for n in nodes if n.name == name)


class Reader:
    """Runs a whole network and returns its logits and its activations at some positions.

    It calls the network's own modules in the network's own order, so the logits equal the network's bit for bit. It
    skips layers that no requested output needs.
    """

    def __init__(self, traced: Traced, names: Sequence[str], *, logits: bool = True) -> None:
        self._taps = [name for name in dict.fromkeys(names) if name != INPUT]
        self._logits = logits
        self.part = cut(traced, INPUT, self._taps, logits=self._logits) if self._taps or self._logits else None

    def __call__(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Preprocessed images (N, C, H, W) -> logits (N, classes) or (N, 0), activations by position."""
        if self.part is None:
            return x.new_empty(len(x), 0), {INPUT: x}
        logits, activations = self.part(x)
        found = {INPUT: x, **dict(zip(self._taps, activations, strict=True))}
        return (logits if self._logits else x.new_empty(len(x), 0)), found


def run_part(part: fx.GraphModule, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Call a graph module made by `cut`: activation -> (logits, taps)."""
    logits, taps = part(x)
    return logits, taps


def taps_behind(traced: Traced, start: str) -> list[str]:
    """Names of the positions behind `start`, in order, without `start`.

    Raises:
        PositionError: `start` is not a position.
    """
    return [p.name for p in traced.positions[traced.positions.index(traced.position(start)) + 1 :]]
