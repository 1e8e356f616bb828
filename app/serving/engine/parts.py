"""Parts of networks that serving runs as one call: a trunk and a branch. Serving and the exporting child use them."""

import copy
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pnc_core.graph.features import Reader
from pnc_core.graph.positions import PositionInfo, Traced
from pnc_core.module.head import Head, pool_taps
from pnc_core.module.module import ClonedModule
from pnc_core.module.tail import Gate

Tensors = tuple[Tensor, ...]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers into which a batch norm behind them is folded."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Reads:
    """Outputs of a target that modules read, beside its logits."""

    entries: tuple[str, ...] = ()
    """Positions whose activations modules take, sorted."""
    pools: tuple[tuple[int, int], ...] = ()
    """By grid, ascending: the grid, and the number of the target's last taps that are pooled."""

    @classmethod
    def of(cls, entries: Collection[str], pools: Collection[tuple[int, int]]) -> "Reads":
        """Combine the positions and pools that several modules read."""
        most: dict[int, int] = {}
        for grid, taps in pools:
            most[grid] = max(taps, most.get(grid, 0))
        return cls(tuple(sorted(set(entries))), tuple(sorted(most.items())))

    def covers(self, other: "Reads") -> bool:
        """Whether these outputs contain all outputs of `other`."""
        pools = dict(self.pools)
        return set(other.entries) <= set(self.entries) and all(pools.get(g, 0) >= taps for g, taps in other.pools)


class TrunkPart(nn.Module):
    """From images to logits and activations."""

    def __init__(self, part: fx.GraphModule, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.part, self.precision = part, precision

    def forward(self, x: Tensor) -> Tensors:
        """Preprocessed images -> logits, activations at the positions of the part."""
        logits, taps = self.part(x.to(self.precision))
        return (logits.float(), *taps)


class ReadTrunk(nn.Module):
    """From images to logits and the outputs that some modules read."""

    def __init__(self, traced: Traced, reads: Reads, *, fold: bool) -> None:
        super().__init__()
        taps = [_last(traced.taps, count) for _, count in reads.pools]
        self._names = list(dict.fromkeys((*reads.entries, *(tap.name for group in taps for tap in group))))
        part = Reader(traced, self._names).part
        assert part is not None  # the logits are always read
        self.part = TrunkPart(folded(part) if fold else part)
        self._entries = reads.entries
        grids = [grid for grid, _ in reads.pools]
        self._pools = [
            (grid, [t.name for t in group], [t.axis for t in group]) for grid, group in zip(grids, taps, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensors:
        """Preprocessed images -> logits, activations in the order of `entries`, pooled taps in the order of `pools`."""
        logits, *activations = self.part(x)
        found = dict(zip(self._names, activations, strict=True))
        pooled = (pool_taps([found[name] for name in names], axes, grid) for grid, names, axes in self._pools)
        return (logits, *(found[name] for name in self._entries), *pooled)


def _last(taps: Sequence[PositionInfo], count: int) -> Sequence[PositionInfo]:
    return taps[len(taps) - count :]


class PoolingPart(nn.Module):
    """From taps to the pooled features that heads read."""

    def __init__(self, axes: Sequence[int], grid: int) -> None:
        super().__init__()
        self.axes, self.grid = axes, grid

    def forward(self, *taps: Tensor) -> Tensors:
        """Taps -> pooled features."""
        return (pool_taps(taps, self.axes, self.grid),)


class BranchPart(nn.Module):
    """From an activation and pooled taps to the module's correction, if it has one, and its own logits."""

    def __init__(self, module: ClonedModule, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.module, self.precision = module, precision

    def forward(self, phi: Tensor, seen: Tensor) -> Tensors:
        """Activation and the target's pooled taps -> the correction, if there is one, and logits."""
        correction, own = self.module(phi.to(self.precision), seen)
        return (own,) if correction is None else (correction, own)


def without_locality_gate(module: ClonedModule) -> ClonedModule:
    """A shallow copy that answers every image; the same module if it has no locality gate."""
    head: Head = module.head
    if not head.strict:
        return module
    made: ClonedModule = _shallow(module)
    ungated: Head = _shallow(head)
    ungated.strict = False
    made.head = ungated
    return made


def _shallow(part: Any) -> Any:
    """A copy of a network that shares its layers and tensors."""
    made = copy.copy(part)
    made._modules, made._parameters = dict(part._modules), dict(part._parameters)
    return made


def copied(module: ClonedModule, precision: torch.dtype = torch.float32) -> ClonedModule:
    """Copy without batch norms and without gates that change nothing. The head stays float32."""
    made = copy.deepcopy(module)
    made.part = folded(_without_identity_gates(made.part), precision)
    made.adapter.to(precision)
    return made


def folded(part: fx.GraphModule, precision: torch.dtype = torch.float32) -> fx.GraphModule:
    """Copy with batch norms folded into the preceding layers."""
    made = copy.deepcopy(part)
    calls = Counter(node.target for node in made.graph.nodes if node.op == "call_module")
    for node in list(made.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer, norm = (made.get_submodule(str(one.target)) for one in (before, node))
        if not isinstance(layer, CONVOLUTIONS) or not isinstance(norm, NORMS) or calls[before.target] > 1:
            continue
        if norm.track_running_stats:
            made.set_submodule(str(before.target), fuse_conv_bn_eval(layer, norm))
            node.replace_all_uses_with(before)
            made.graph.erase_node(node)
    made.delete_all_unused_submodules()
    made.recompile()
    return made.to(precision)


def _without_identity_gates(part: Any) -> fx.GraphModule:
    """Remove, in place, gates that keep all channels and compute y = 1 x + 0."""
    assert isinstance(part, fx.GraphModule)
    for node in list(part.graph.nodes):
        gate = part.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(gate, Gate) and gate.mask is None and bool((gate.scale == 1).all() and (gate.shift == 0).all()):
            node.replace_all_uses_with(node.args[0])
            part.graph.erase_node(node)
    part.recompile()
    return part
