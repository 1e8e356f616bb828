"""A source's tail: opened with gates for localization, then cut down physically.

`open_tail` copies the part of the source behind a position, and puts a gate at the input of every layer that reads a
prunable channel group. A gate computes, per channel c,

    y_c = (x_c scale_c + shift_c) mask_c

Masking channels and removing them with `extract` give the same logits. The kept numbers are bit-for-bit copies of the
source's numbers; `verify` proves it.

Source: the paper's abstract (the module is a part of the source). Gates at the consumers' inputs, with a trainable
calibration, are our own choice.
"""

import copy
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from pnc_core.errors import MismatchError, NetworkError, PositionError, is_out_of_memory
from pnc_core.graph.attention import open_attention
from pnc_core.graph.axes import channel_axes
from pnc_core.graph.features import cut, run_part, taps_behind
from pnc_core.graph.groups import ChannelGroup, Channels, Consumer, channel_groups
from pnc_core.graph.layouts import Layout, Pieces, features, parameter_count, remove_channels
from pnc_core.graph.positions import INPUT, Traced
from pnc_core.module.parallel_adapter import ParallelAdapter, insert_parallel_adapters

CONSTANT = "_tensor_constant"
"""Prefix that torch.fx gives to tensors which the network's code computes without using its input."""


class Gate(nn.Module):
    """y = (x * scale + shift) * mask, with one `scale`, `shift` and `mask` per channel.

    `scale` and `shift` are the trainable channel calibration; they start as the identity. `mask` is only set while
    channels are scored or chosen: (C,), or (N, C) for scores of single images.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.mask: Tensor | None = None

    def forward(self, x: Tensor, axis: int, repeat: int) -> Tensor:
        """Gate the channels along dimension `axis` of a tensor of any shape; each channel has `repeat` features."""
        y = x * _along(self.scale, x, axis, repeat) + _along(self.shift, x, axis, repeat)
        return y if self.mask is None else y * _along(self.mask, x, axis, repeat)


def _along(values: Tensor, x: Tensor, axis: int, repeat: int) -> Tensor:
    wide = values.repeat_interleave(repeat, dim=-1) if repeat > 1 else values
    shape = [1] * x.ndim
    shape[axis] = wide.shape[-1]
    if wide.ndim == 2:
        shape[0] = wide.shape[0]
    return wide.reshape(shape)


@dataclass(frozen=True)
class Tail:
    """The part of a source behind a position, restricted to the cloned classes."""

    part: fx.GraphModule
    """activation (N, *shape) -> (logits (N, K), tuple of activations at `taps`)."""
    start: str
    axis: int
    """Channel dimension of the activation at `start`."""
    taps: tuple[str, ...]
    tap_axes: tuple[int, ...]
    """Channel dimension of each tap."""
    tap_groups: tuple[str | None, ...]
    """By tap: the prunable group whose channels it holds, or None; for a tap of several groups see `tap_pieces`."""
    groups: tuple[ChannelGroup, ...]
    gates: dict[str, Gate]
    kept: dict[str, Tensor]
    """int64 indices of the source's channels that are present, by group."""
    residual: bool
    """Residual streams can be pruned too."""
    layouts: dict[str, Layout]
    """By module: the groups along the rows and columns of the opened tail's tensors."""
    tap_pieces: tuple[Pieces, ...]
    """The groups along each tap's channel dimension in the opened tail. Groups that share a tap can be pruned only with
    `residual`."""
    inner: dict[str, ParallelAdapter] = field(default_factory=dict)
    """By layer: its parallel adapter; only an extracted tail has parallel adapters."""

    @property
    def parameter_count(self) -> int:
        """Number of copied values; gates and parallel adapters do not count."""
        return sum(tensor.numel() for tensor in copied_tensors(self).values())

    @property
    def learned(self) -> dict[str, dict[str, nn.Module]]:
        """Trained parts inside the tail: by kind, then by name of group or layer."""
        return {"calibration": dict(self.gates), "inner": dict(self.inner)}

    def tap_channels(self, source: Traced) -> list[int]:
        """Number of channels of each tap of an extracted tail; `source` is the network it was opened from."""
        rows = zip(map(source.position, self.taps), self.tap_groups, strict=True)
        return [info.channels if group is None else len(self.kept[group]) for info, group in rows]

    def forward(self, activation: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Activation at `start` -> (logits, taps)."""
        return run_part(self.part, activation)

    def mask(self, kept: dict[str, Tensor] | None) -> None:
        """Mask all channels except `kept` (None: no mask); for an opened tail only."""
        for name, gate in self.gates.items():
            gate.mask = None
            if kept is not None:
                gate.mask = torch.zeros_like(gate.scale.detach()).index_fill(0, kept[name].to(gate.scale.device), 1.0)

    def count(self, sizes: dict[str, int]) -> int:
        """Number of copied values of an opened tail with `sizes[group]` channels of each group."""
        gates = sum(_count(gate) for gate in self.gates.values())
        return parameter_count(self.part, self.layouts, sizes) - gates


def _count(part: nn.Module) -> int:
    tensors: Iterable[Tensor] = part.state_dict().values()
    return sum(tensor.numel() for tensor in tensors)


def open_tail(source: Traced, start: str, classes: Sequence[int], *, residual: bool = False) -> Tail:
    """Copy the source's tail behind `start`, keep the logits of `classes`, and insert gates.

    Inner channels of blocks are prunable; streams are if a network has no inner channels, as RepVGG, whose blocks add.
    Where no layer has one row a class (two heads whose logits are added), the tail computes all classes and selects.
    A network without any prunable channel has tails without groups, which stay whole.

    Args:
        source: Traced source network; it is copied, not changed.
        start: Name of the position where the tail begins.
        classes: Indices of the cloned classes among the source's logits.
        residual: Make residual streams prunable too, not only inner channels.

    Raises:
        PositionError: no channel behind `start` can be pruned, but others of the network can.
        NetworkError: a layer behind `start` has forward hooks, or cannot be copied.
    """
    infos = [source.position(name) for name in taps_behind(source, start)]
    part = _copied(cut(source, start, [info.name for info in infos]), start).requires_grad_(False).eval()
    _name_constants(part)
    channels = _read(part, source)
    rows = None if channels.logits is None else channels.logits.name
    infos = [i for i in infos if all(rows is None or piece.group != rows for piece in channels.pieces[i.node])]
    _tap_only(part, [info.node for info in infos])
    tapped = tuple(channels.pieces[info.node] for info in infos)
    groups = channels.groups if residual else _prunable(source, start, _apart(channels.groups, tapped))
    if rows is None:
        _select(part, classes)
    else:
        remove_channels(part, channels.layouts, {rows: torch.as_tensor(list(classes))})
    return Tail(
        part=part,
        start=start,
        axis=source.position(start).axis,
        taps=tuple(info.name for info in infos),
        tap_axes=tuple(info.axis for info in infos),
        tap_groups=tuple(_offered(_alone(pieces), groups) for pieces in tapped),
        groups=tuple(groups),
        gates=_insert_gates(part, groups),
        kept={g.name: torch.arange(g.width) for g in groups},
        residual=residual,
        layouts=channels.layouts,
        tap_pieces=tapped,
    )


def _apart(groups: Sequence[ChannelGroup], tapped: Sequence[Pieces]) -> tuple[ChannelGroup, ...]:
    """Groups that share no tap with another group."""
    mixed = {piece.group for pieces in tapped if _alone(pieces) is None for piece in pieces}
    return tuple(g for g in groups if g.name not in mixed)


def _prunable(source: Traced, start: str, groups: tuple[ChannelGroup, ...]) -> tuple[ChannelGroup, ...]:
    """The inner channels among the groups of a tail; its streams if the whole network has no inner channels.

    Raises:
        PositionError: the tail has none of them, but the whole network has some.
    """
    inner = tuple(g for g in groups if not g.residual)
    every = groups if inner or start == INPUT else _groups_of(source)
    if not inner and (any(not g.residual for g in every) or (every and not groups)):
        raise PositionError(f"position {start!r}: expected channels that can be pruned behind it, found none")
    return inner or groups


def _groups_of(source: Traced) -> tuple[ChannelGroup, ...]:
    """The groups of a whole network that share no tap."""
    names = taps_behind(source, INPUT)
    channels = _read(_copied(cut(source, INPUT, names), INPUT), source)
    return _apart(channels.groups, [channels.pieces[source.position(name).node] for name in names])


def _select(part: fx.GraphModule, classes: Sequence[int]) -> None:
    """Select columns of the logits: (N, all classes) -> (N, K)."""
    output = next(n for n in part.graph.nodes if n.op == "output")
    logits, tapped = output.args[0]
    with part.graph.inserting_before(output):
        chosen = part.graph.call_function(operator.getitem, (logits, (slice(None), list(classes))))
    output.args = ((chosen, tapped),)
    part.recompile()


def _copied(part: fx.GraphModule, start: str) -> fx.GraphModule:
    """A copy of a part of the source, without hooks on its gradients.

    Raises:
        NetworkError: a layer has forward hooks, or cannot be copied.
    """
    hooked = next((name for name, m in part.named_modules() if m._forward_hooks or m._forward_pre_hooks), None)
    if hooked is not None:
        raise NetworkError(
            f"source: expected layers without forward hooks behind position {start!r}, got some on {hooked!r}; a "
            "module holds copies of layers and no code around them: remove the hooks, or move their code into forward"
        )
    try:
        copied = copy.deepcopy(part)
    except Exception as error:  # a layer may hold anything
        if is_out_of_memory(error):
            raise
        raise NetworkError(
            f"source: expected layers that copy.deepcopy can copy behind position {start!r}, got "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}; delete tensors that hooks left on them"
        ) from error
    for layer in copied.modules():
        layer._backward_hooks.clear()
        layer._backward_pre_hooks.clear()
    return copied


def _name_constants(part: fx.GraphModule) -> None:
    """Number computed constants by their order in the tail, because torch.fx's own numbers depend on earlier traces."""
    nodes = [n for n in part.graph.nodes if n.op == "get_attr" and str(n.target).startswith(CONSTANT)]
    names = {target: f"{CONSTANT}{i}" for i, target in enumerate(dict.fromkeys(str(n.target) for n in nodes))}
    values = {target: getattr(part, target) for target in names}
    for target in names:
        delattr(part, target)
    for target, name in names.items():
        part.register_buffer(name, values[target])
    for node in nodes:
        node.target = names[str(node.target)]
    part.recompile()


def _tap_only(part: fx.GraphModule, nodes: Sequence[str]) -> None:
    """Drop taps whose channels are the classes (global pooling behind the last layer): they lose rows."""
    output = next(n for n in part.graph.nodes if n.op == "output")
    logits, tapped = output.args[0]
    output.args = ((logits, tuple(n for n in tapped if n.name in nodes)),)
    part.recompile()


def _read(part: fx.GraphModule, source: Traced) -> Channels:
    output = next(n for n in part.graph.nodes if n.op == "output")
    shapes = {n.name: source.shapes[n.name] for n in part.graph.nodes if n.name in source.shapes}
    logits = output.args[0][0]
    shapes = open_attention(part, shapes)
    return channel_groups(part, shapes, logits, channel_axes(source.graph_module, source.shapes))


def _alone(pieces: Pieces) -> str | None:
    """The only group of a tensor, if its channels are exactly the tensor's channels; else None."""
    return pieces[0].group if len(pieces) == 1 and pieces[0].repeat == 1 else None


def _offered(name: str | None, groups: tuple[ChannelGroup, ...]) -> str | None:
    return name if any(g.name == name for g in groups) else None


def _insert_gates(part: fx.GraphModule, groups: tuple[ChannelGroup, ...]) -> dict[str, Gate]:
    device = next((p.device for p in part.parameters()), torch.device("cpu"))
    gates = {group.name: Gate(group.width).to(device) for group in groups}
    names = {group.name: f"gate_{i}" for i, group in enumerate(groups)}
    for name, gate in gates.items():
        part.add_submodule(names[name], gate)
    for consumer in _consumers(groups):
        node = next(n for n in part.graph.nodes if n.name == consumer.node)
        before = node.all_input_nodes[0]
        with part.graph.inserting_before(node):
            node.replace_input_with(before, _gated(part.graph, before, consumer, names))
    part.recompile()
    return gates


def _consumers(groups: Iterable[ChannelGroup]) -> list[Consumer]:
    return list({consumer.node: consumer for group in groups for consumer in group.consumers}.values())


def _gated(graph: fx.Graph, x: fx.Node, consumer: Consumer, names: dict[str, str]) -> fx.Node:
    """Put gates behind `x`; a tensor of several groups is split, gated per group, and concatenated again."""

    def gate(piece: fx.Node, name: str | None, repeat: int) -> fx.Node:
        return graph.call_module(names[name], (piece, consumer.axis, repeat)) if name in names else piece

    if len(consumer.pieces) == 1:
        return gate(x, consumer.pieces[0].group, consumer.pieces[0].repeat)
    split = graph.create_node(
        "call_function", torch.split, (x, _widths(consumer.pieces, {}), consumer.axis), name=_split_name(consumer)
    )
    parts = [graph.call_function(operator.getitem, (split, i)) for i in range(len(consumer.pieces))]
    joined = [gate(part, piece.group, piece.repeat) for part, piece in zip(parts, consumer.pieces, strict=True)]
    return graph.call_function(torch.cat, (joined, consumer.axis))


def _split_name(consumer: Consumer) -> str:
    return f"split_for_{consumer.node}"


def _widths(pieces: Pieces, sizes: dict[str, int]) -> list[int]:
    return [features((piece,), sizes) for piece in pieces]


def extract(tail: Tail, kept: dict[str, Tensor]) -> Tail:
    """A physically smaller copy of an opened tail.

    Args:
        tail: An opened tail, with its calibration; not changed.
        kept: int64 ascending indices of the channels to keep, for every group.

    Returns:
        A tail whose outputs equal those of `tail` masked to `kept`.
    """
    part = copy.deepcopy(tail.part)
    remove_channels(part, tail.layouts, kept)
    sizes = {name: len(indices) for name, indices in kept.items()}
    splits = {_split_name(c): _widths(c.pieces, sizes) for c in _consumers(tail.groups)}
    for node in part.graph.nodes:
        if node.name in splits:
            node.update_arg(1, splits[node.name])
    part.recompile()
    gates: dict[str, Gate] = {}
    for i, group in enumerate(tail.groups):
        gate = part.get_submodule(f"gate_{i}")
        assert isinstance(gate, Gate)
        gate.scale = nn.Parameter(gate.scale.detach()[kept[group.name]])
        gate.shift = nn.Parameter(gate.shift.detach()[kept[group.name]])
        gate.mask = None
        gates[group.name] = gate
    return replace(tail, part=part, gates=gates, kept=dict(kept))


def with_parallel_adapters(tail: Tail, layers: Sequence[str] | None = None) -> Tail:
    """Add parallel adapters to an extracted tail. They start at zero, so the logits do not change.

    Args:
        tail: As `extract` returns it; its graph is changed in place.
        layers: Names of the layers; None: every adaptable layer except the logits layer.

    Raises:
        PositionError: a layer cannot have an adapter.
    """
    return replace(tail, inner={**tail.inner, **insert_parallel_adapters(tail.part, layers)})


def copied_tensors(tail: Tail) -> dict[str, Tensor]:
    """The tail's copies of source tensors, by the source's names, without trained tensors."""
    return {n: t.detach() for n, t in tail.part.state_dict().items() if not n.startswith(("gate_", "inner_"))}


def verify(tail: Tail, source: Traced, classes: Sequence[int]) -> None:
    """Prove that every copied tensor is a bit-for-bit slice of the source.

    Raises:
        MismatchError: a tensor differs; the message names it.
    """
    fresh = extract(open_tail(source, tail.start, classes, residual=tail.residual), tail.kept)
    expected, got = copied_tensors(fresh), copied_tensors(tail)
    for name in sorted(expected.keys() | got.keys()):
        if name not in got or name not in expected or not _same_bits(expected[name], got[name]):
            raise MismatchError(f"module: expected tensor {name!r} to be a bit-for-bit slice of the source, it is not")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    left, right = (t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(left, right)
