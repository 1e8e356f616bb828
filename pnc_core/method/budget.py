"""How large and how slow a module may become, known before its tail is cut.

A layer's numbers and multiply-accumulates shrink along what it reads and along what it
makes; one pass of the uncut tail says what each costs whole. With front adapter, calibration, inner
adapters and a head on top that is the exact cost of a finished module, so that a mask is
only chosen among those that keep `max_size` and `max_macs`.

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
from pnc_core.method.job import Job
from pnc_core.method.without_old_images import kind_without_old_images
from pnc_core.module.adapter import Adapter
from pnc_core.module.head import head_cost, seen_width, tap_width
from pnc_core.module.parallel_adapter import adaptable, is_whole, parallel_cost, readout
from pnc_core.module.tail import Tail

HEADS = ("affine", "router", "joint")
"""From light to free."""
ROOM = 3
"""The freest head has room made for it where it takes at most one part in so many of what a module may cost:
there it is worth more than the channels in its place, where classes are many it is not (decision 105)."""
Sizes = Mapping[str, int]
"""How many channels are left of each group."""


def limits(job: Job) -> Cost:
    """What a whole module may cost at most."""
    config, source = job.config, job.source
    macs = sys.maxsize if config.max_macs is None else int(config.max_macs * source.macs)
    return Cost(int(config.max_size * source.parameter_count), macs)


def head_kinds(job: Job) -> tuple[str, ...]:
    """The heads that a job chooses from, the lightest first."""
    config = job.config
    if not config.old_images:
        return (kind_without_old_images(job),)
    if config.head != "auto":
        return (config.head,)
    return HEADS if config.locality == "soft" else HEADS[:2]


@dataclass(frozen=True)
class _Share:
    """Multiply-accumulates of the uncut tail that shrink with the same channels."""

    macs: int
    sides: tuple[Pieces, ...]

    def left(self, sizes: Sizes) -> int:
        count = self.macs
        for side in self.sides:
            count = shrunk(count, side, sizes)
        return count


class _Meter(fx.Interpreter):
    """Runs an uncut tail and notes what every node costs and how many numbers it makes."""

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
    """What an opened tail will cost with so many channels of each group, with all that is learned inside it.

    Args:
        tail: As `open_tail` gave it.
        shape: Of one activation at the tail's start, without the batch; None: multiply-accumulates are not
            asked for, and are 0.
        beside: Layers that parallel adapters will be put beside.
    """

    def __init__(self, tail: Tail, shape: tuple[int, ...] | None, beside: Iterable[fx.Node] = ()) -> None:
        self._tail = tail
        self._meter = None if shape is None else _Meter(tail.part).measure(torch.zeros(1, *shape, device=_device(tail)))
        self._shares = [] if self._meter is None else self._measured(self._meter)
        self._beside = [(node, is_whole(tail.part, node)) for node in beside]

    def __call__(self, sizes: Sizes) -> Cost:
        """Copies, calibration and parallel adapters."""
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
        # Queries, keys and values are a layer's; what heads make of them goes by the number of heads alone.
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
        return parallel_cost(*widths, places, whole=whole)


def _device(tail: Tail) -> torch.device:
    return next(iter(tail.gates.values())).scale.device


def _layer(node: fx.Node) -> str:
    """The module whose tensors a node works with."""
    if node.op == "call_module":
        return str(node.target)
    owners = (str(n.target).rpartition(".")[0] for n in node.all_input_nodes if n.op == "get_attr")
    return next(owners, "")


class Bounds:
    """What the whole module at one position may cost, and what it will with so many channels of each group.

    Args:
        job: Its configuration says what is allowed, as shares of the source.
        position: Where.
        adapter: In front of the tail.
        tail: Uncut.

    Raises:
        PositionError: not even one channel of every group is within the bounds.
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
        """Of adapters, calibration, copies and the head that room is left for."""
        return self._with(self._kind, sizes)

    def hold(self, sizes: Sizes) -> bool:
        """Is the module within its bounds?"""
        return self.cost(sizes).within(self._most)

    def _kind_with_room(self) -> str:
        """The freest head where that takes little, or else the lightest."""
        kinds, whole = head_kinds(self._job), {group.name: group.width for group in self._tail.groups}
        little = Cost(self._most.parameter_count // ROOM, self._most.macs // ROOM)
        roomy = self._head(kinds[-1], whole).within(little) and self._with(kinds[-1], self._single()).within(self._most)
        return kinds[-1] if roomy else kinds[0]

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
                f"position {position}: expected a module of at most {most.parameter_count:,} numbers in all, as "
                f"max_size {config.max_size} says, got {least.parameter_count:,} with a single channel of every group; "
                "raise max_size, or take another position"
            )
        if least.macs > most.macs:
            raise PositionError(
                f"position {position}: expected a module of at most {most.macs:,} multiply-accumulates, as max_macs "
                f"{config.max_macs} says, got {least.macs:,} with a single channel of every group; raise max_macs, "
                "or take another position"
            )
