"""Compute a module's exact cost for any number of kept channels, before its tail is cut.

The numbers and the multiply-accumulates (MACs) of a layer are proportional to the channels it reads and to the channels
it makes. One pass of the uncut tail gives the cost of every layer with all channels, so

    cost(k_in of n_in, k_out of n_out channels) = cost(all) (k_in / n_in) (k_out / n_out).

The module's cost is the sum over layers, plus front adapter, calibration, parallel adapters and head. So the mask can
be chosen among those masks that keep `max_size` and `max_macs`.

Own choice.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from pnc_core.config import Position
from pnc_core.errors import PositionError
from pnc_core.graph.attention import Heads
from pnc_core.graph.cost import Cost, count_macs
from pnc_core.graph.layouts import Layout, Pieces, shrunk
from pnc_core.method.heads.without_old_images import kind_without_old_images
from pnc_core.method.job import Job
from pnc_core.module.adapter import Adapter
from pnc_core.module.head import head_cost, seen_width, tap_width
from pnc_core.module.parallel_adapter import adaptable, is_full_rank, parallel_cost, readout
from pnc_core.module.tail import Tail

HEADS = ("affine", "router", "joint")
"""Kinds of head, in ascending order of cost."""
HEAD_DIVISOR = 3
"""The budget leaves room for the costliest head if it takes at most 1 / 3 of the bounds, else for the cheapest head.

With many classes a head costs more, and the channels in its place are worth more (decision 105).
"""
Sizes = Mapping[str, int]
"""Number of kept channels by group."""


def limits(job: Job) -> Cost:
    """Largest allowed cost of a whole module."""
    config, source = job.config, job.source
    macs = sys.maxsize if config.max_macs is None else int(config.max_macs * source.macs)
    return Cost(int(config.size_limit * source.parameter_count), macs)


def head_kinds(job: Job) -> tuple[str, ...]:
    """Kinds of head that a job chooses from, in ascending order of cost."""
    config = job.config
    if not config.old_images:
        return (kind_without_old_images(job),)
    if config.head != "auto":
        return (config.head,)
    return HEADS if config.locality == "soft" else HEADS[:2]


@dataclass(frozen=True)
class _Share:
    """MACs of the uncut tail that are proportional to the same channels."""

    macs: int
    sides: tuple[Pieces, ...]
    """The MACs are proportional to the channels of every side."""

    def left(self, sizes: Sizes) -> int:
        """MACs with `sizes` channels."""
        count = self.macs
        for side in self.sides:
            count = shrunk(count, side, sizes)
        return count


class _Meter(fx.Interpreter):
    """Runs an uncut tail and records the MACs and the output size of every node."""

    def __init__(self, part: fx.GraphModule) -> None:
        super().__init__(part)
        self.macs: dict[str, int] = {}
        self.made: dict[str, int] = {}
        self._counter = FlopCounterMode(display=False)

    def measure(self, activation: Tensor) -> "_Meter":
        with torch.no_grad(), self._counter:
            self.run(activation)
        return self

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.get_total_flops()
        answer = super().run_node(n)
        self.macs[n.name] = (self._counter.get_total_flops() - before) // 2
        self.made[n.name] = answer.numel() if isinstance(answer, Tensor) else 0
        return answer


class TailCost:
    """Cost of a tail, including calibration and parallel adapters, for any number of kept channels.

    Args:
        tail: Opened tail, as `open_tail` returns it.
        shape: Shape of one activation at the tail's start, without the batch. None: MACs are not counted and are 0.
        beside: Layers that will get a parallel adapter.
    """

    def __init__(self, tail: Tail, shape: tuple[int, ...] | None, beside: Iterable[fx.Node] = ()) -> None:
        self._tail = tail
        self._meter = None if shape is None else _Meter(tail.part).measure(torch.zeros(1, *shape, device=_device(tail)))
        self._shares = [] if self._meter is None else self._measured(self._meter)
        self._beside = [(node, is_full_rank(tail.part, node)) for node in beside]

    def __call__(self, sizes: Sizes) -> Cost:
        """Cost of copied numbers, calibration and parallel adapters."""
        calibration = 2 * sum(sizes[group.name] for group in self._tail.groups)
        copies = Cost(self._tail.count(dict(sizes)) + calibration, sum(share.left(sizes) for share in self._shares))
        whole = sum((self._adapter(*row, sizes) for row in self._beside), start=copies)
        return whole if self._meter else Cost(whole.parameter_count, 0)

    def _measured(self, meter: _Meter) -> list[_Share]:
        nodes = [node for node in self._tail.part.graph.nodes if meter.macs[node.name]]
        return [share for node in nodes for share in self._shares_of(node, meter)]

    def _shares_of(self, node: fx.Node, meter: _Meter) -> list[_Share]:
        name, macs = _layer(node), meter.macs[node.name]
        layout = self._tail.layouts.get(name)
        if layout is None:
            return [_Share(macs, ())]
        whole = (layout.inputs, layout.outputs)
        layer = self._tail.part.get_submodule(name)
        if not isinstance(layer, Heads):
            return [_Share(macs, whole)]
        # The projections depend on channels read and made; the attention itself depends on the number of heads only.
        projected = meter.made[node.name] // layer.width * layer.in_proj_weight.numel()
        return [_Share(projected, whole), _Share(macs - projected, (layout.outputs,))]

    def _adapter(self, node: fx.Node, whole: bool, sizes: Sizes) -> Cost:
        layer = self._tail.part.get_submodule(str(node.target))
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        layout = self._tail.layouts.get(str(node.target), Layout())
        width_out, width_in = layer.weight.shape[:2]
        places = self._meter.made[node.name] // width_out if self._meter else 0
        if shrunk(getattr(layer, "groups", 1), layout.outputs, sizes) > 1:
            return Cost(0, 0)
        widths = shrunk(width_in, layout.inputs, sizes), shrunk(width_out, layout.outputs, sizes)
        return parallel_cost(*widths, places, full_rank=whole)


def _device(tail: Tail) -> torch.device:
    return next(iter(tail.gates.values())).scale.device


def _layer(node: fx.Node) -> str:
    """Path of the module that owns a node's weights; empty if there is none."""
    if node.op == "call_module":
        return str(node.target)
    owners = (str(n.target).rpartition(".")[0] for n in node.all_input_nodes if n.op == "get_attr")
    return next(owners, "")


class Bounds:
    """Bounds on the whole module at one position, and its cost for any number of kept channels.

    Args:
        job: Its configuration holds the bounds, as shares of the source.
        position: Pair of positions.
        adapter: The adapter in front of the tail.
        tail: The uncut tail.

    Raises:
        PositionError: even one channel per group exceeds the bounds.
    """

    def __init__(self, job: Job, position: Position, adapter: Adapter, tail: Tail) -> None:
        self._job, self._tail, self._most = job, tail, limits(job)
        self._seen = seen_width(job.target, 1)
        config, shape = job.config, job.source.position(position.source).shape
        inside = adaptable(tail.part, grouped=True) if config.inner_adapters else ()
        reconstructed = readout(tail.part) if config.reconstructs else ()
        self._inside = TailCost(tail, None if config.max_macs is None else shape, (*inside, *reconstructed))
        phi = torch.zeros(1, *adapter.shape, device=job.target.device)
        self._front = Cost(sum(p.numel() for p in adapter.parameters()), count_macs(lambda: adapter(phi)))
        self._kind = self._kind_with_room()
        self._check(position)

    def cost(self, sizes: Sizes) -> Cost:
        """Cost of adapters, calibration, copied numbers and the head that the budget leaves room for."""
        return self._with(self._kind, sizes)

    def hold_for(self, sizes: Sizes) -> bool:
        """Is a module with these channels within both bounds?"""
        return self.cost(sizes).within(self._most)

    def _kind_with_room(self) -> str:
        """The costliest kind of head if it takes at most 1 / `HEAD_DIVISOR` of the bounds, else the cheapest kind."""
        kinds, all_channels = head_kinds(self._job), {group.name: group.width for group in self._tail.groups}
        share = Cost(self._most.parameter_count // HEAD_DIVISOR, self._most.macs // HEAD_DIVISOR)
        small = self._head(kinds[-1], all_channels).within(share)
        return kinds[-1] if small and self._with(kinds[-1], self._single()).within(self._most) else kinds[0]

    def _single(self) -> Sizes:
        return {group.name: 1 for group in self._tail.groups}

    def _with(self, kind: str, sizes: Sizes) -> Cost:
        return self._front + self._inside(sizes) + self._head(kind, sizes)

    def _head(self, kind: str, sizes: Sizes) -> Cost:
        job, tail = self._job, self._tail
        infos = zip(map(job.source.position, tail.taps), tail.tap_groups, strict=True)
        made = sum(tap_width(info.channels if g is None else sizes[g], info.grid, 1) for info, g in infos)
        locality_gate = self._seen if job.config.locality == "strict" else 0
        return head_cost(kind, self._seen + made, job.old_classes, len(job.cloned), locality_gate)

    def _check(self, position: Position) -> None:
        config, most = self._job.config, self._most
        least = self.cost(self._single())
        if least.parameter_count > most.parameter_count:
            raise PositionError(
                f"position {position}: expected a module of at most {most.parameter_count:,} numbers in all (max_size "
                f"{config.size_limit}), got {least.parameter_count:,} with a single channel of every group; "
                "raise max_size, or take another position"
            )
        if least.macs > most.macs:
            raise PositionError(
                f"position {position}: expected a module of at most {most.macs:,} multiply-accumulates (max_macs "
                f"{config.max_macs}), got {least.macs:,} with a single channel of every group; raise max_macs, "
                "or take another position"
            )
