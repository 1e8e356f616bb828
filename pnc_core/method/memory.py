"""Estimate the memory that a job will need, from the shapes of its networks. No network runs.

A job has three phases, and needs the memory of the largest one beside its networks and images:

- search: the uncut tails of all candidate pairs, their ridge sums, and the activations that both networks return
- training: one tail, and all of its activations for the backward pass
- heads: the pooled taps of all images and views

On a CPU one memory holds everything. Beside a GPU the images, the ridge sums and the pooled taps stay in the memory of
the host. The estimate is meant to lie above the measured use and below twice of it. Own choice.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from pnc_core.config import CloneConfig, geometries_of
from pnc_core.errors import PositionError
from pnc_core.graph.positions import BATCH, INPUT, PositionInfo, Traced
from pnc_core.method.heads.calibrate import FAST_VIEWS, most_grids
from pnc_core.method.heads.fit import is_small
from pnc_core.method.heads.inputs import views_of
from pnc_core.method.learn import LOCAL_IMAGES
from pnc_core.method.lime import VARIANTS
from pnc_core.method.search import candidate_pairs
from pnc_core.module.head import tap_width
from pnc_core.module.tail import open_tail

COPIES = 4
"""Copies of the images: all, those of the job's classes, both parts of the split, and one part while it is hashed."""
NUMBER, DOUBLE = 4, 8
"""Bytes of a float32 and of a float64."""
FIT_COPIES, LOGIT_COPIES = 3, 8
"""Copies of the pooled taps and of the logits in a fit: the rows of both parts, and the same centred and scaled."""
TAIL = 1.25
"""Bytes of an opened tail by bytes of its values: it is copied once into another memory layout, which leaves gaps."""
MARGIN = 1.3
"""Factor for gaps between allocations, workspaces of layers, and the optimizer."""
STARTED = 128 * 2**20
"""Bytes of code and buffers that torch loads when a network first runs, and of the traced graphs of the tails."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a job needs beyond its two networks."""

    host: int
    """In the memory of the host: images, ridge sums and pooled taps; on a CPU also the bytes of `device`."""
    device: int
    """In the memory of the networks' device: tails and activations."""


@dataclass(frozen=True)
class _Phase:
    host: float
    device: float


def estimate(target: Traced, source: Traced, images: int, config: CloneConfig) -> Memory:
    """Memory of a job beyond its two networks.

    Args:
        target: The traced target, on any device including `meta`; not changed.
        source: The traced source, likewise.
        images: Number of the job's images, of old and cloned classes.
        config: Parameters of the job.
    """
    specs = [target.spec, source.spec]
    pixels = COPIES * images * sum(math.prod(geometry.size) for geometry in geometries_of(specs))
    phases = [
        _search(target, source, images, config),
        _training(target, source, images, config),
        _heads(target, source, images, config),
    ]
    if target.device.type == "cpu":
        most = STARTED + MARGIN * (pixels + max(phase.host + phase.device for phase in phases))
        return Memory(int(most), 0)
    host, device = max(phase.host for phase in phases), max(phase.device for phase in phases)
    return Memory(int(STARTED + MARGIN * (pixels + host)), int(STARTED + MARGIN * device))


def _search(target: Traced, source: Traced, images: int, config: CloneConfig) -> _Phase:
    if config.position is not None:
        return _Phase(0.0, 0.0)
    ends = _ends(target, source, config)
    behind = _numbers_behind(source)
    tails = TAIL * sum(behind[end.node] for _, end in ends)
    sums = sum((a.channels + 1) * (a.channels + b.channels + 1) for a, b in ends)
    read = _apart([a for a, _ in ends]) + _apart([b for _, b in ends])
    batch = min(config.batch_size, images)
    running = batch * (read + max(live_numbers(target), live_numbers(source)))
    last = _last_width(target) + _last_width(source) + _classes(target, config)
    rows = 2 * len(ends) * min(images, config.screen_images) * last
    fits = 3 * last * last
    return _Phase(NUMBER * rows + DOUBLE * (sums + fits), NUMBER * (tails + running))


def _training(target: Traced, source: Traced, images: int, config: CloneConfig) -> _Phase:
    batch = min(config.batch_size, images)
    trained = batch + (LOCAL_IMAGES * VARIANTS if config.preset == "joint" else 0)
    start = min((end for _, end in _ends(target, source, config)), key=lambda end: end.depth)
    kept = trained * (kept_numbers(source, start, config) + live_numbers(source))
    read = batch * (_apart([*target.positions]) + _apart([*source.positions]) + live_numbers(target))
    tails = (1 + config.shortlist) * _numbers_behind(source)[start.node]
    return _Phase(0.0, NUMBER * (kept + read + tails))


def _heads(target: Traced, source: Traced, images: int, config: CloneConfig) -> _Phase:
    views = min(config.views, FAST_VIEWS) if config.preset == "fast" else config.views
    rows = images * (1 + views_of(images, views))
    starts = [source.positions.index(end) for _, end in _ends(target, source, config)]
    taps = [*target.taps, *(p for p in source.positions[min(starts) + 1 :] if p.name != INPUT)]
    widths = [sum(tap_width(p.channels, p.grid, grid) for p in taps) for grid in most_grids(config)]
    classes = _classes(target, config)
    copies = FIT_COPIES * (DOUBLE // NUMBER if is_small(rows, max(widths), classes) else 1)
    pooled = rows * (sum(widths) + copies * max(widths) + LOGIT_COPIES * classes)
    batch = min(config.batch_size, images)
    running = batch * (_apart(taps) + max(live_numbers(target), live_numbers(source)))
    return _Phase(NUMBER * pooled, NUMBER * (running + source.parameter_count))


def _ends(target: Traced, source: Traced, config: CloneConfig) -> list[tuple[PositionInfo, PositionInfo]]:
    """The pairs of positions that the job may use.

    Raises:
        PositionError: a network has no such position, or no pair can be joined.
    """
    pairs = candidate_pairs(target, source) if config.position is None else [config.position]
    if not pairs:
        raise PositionError("positions: expected a pair that can be joined, got none; choose other networks")
    return [(target.position(pair.target), source.position(pair.source)) for pair in pairs]


def _classes(target: Traced, config: CloneConfig) -> int:
    return len(target.spec.classes) + len(config.classes)


def kept_numbers(source: Traced, start: PositionInfo, config: CloneConfig) -> int:
    """Values for one image that the backward pass of the uncut tail behind `start` keeps.

    The tail runs on fake tensors, which have shapes and no values.
    """
    try:
        tail = open_tail(source, start.name, [source.spec.classes.index(name) for name in config.classes])
    except PositionError:  # the search leaves this position out
        return sum(_made(source).values())
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.ndim and tensor.shape[0] == BATCH:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with (
        torch.enable_grad(),
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        for gate in tail.gates.values():
            gate.mask = torch.ones(BATCH, len(gate.scale), device=source.device, requires_grad=True)
        tail.forward(torch.zeros(BATCH, *start.shape, device=source.device, requires_grad=True))
    return sum(tensor.numel() for tensor in kept.values()) // BATCH


def live_numbers(traced: Traced) -> int:
    """Largest number of values for one image that are alive at once while the network runs without gradients."""
    made = _made(traced)
    nodes = [node for node in traced.graph_module.graph.nodes if node.name in traced.shapes]
    place = {node: number for number, node in enumerate(nodes)}
    ends: dict[int, list[fx.Node]] = {}
    for node in nodes:
        last = max((place[user] for user in node.users if user in place), default=place[node])
        ends.setdefault(last, []).append(node)
    most = alive = 0
    for number, node in enumerate(nodes):
        alive += made.get(node.name, 0)
        most = max(most, alive)
        alive -= sum(made.get(gone.name, 0) for gone in ends.get(number, ()))
    return most


def _made(traced: Traced) -> dict[str, int]:
    """Numbers for one image that each node makes. A tensor that is changed in place counts once."""
    return {
        name: math.prod(shape) // BATCH
        for name, shape in traced.shapes.items()
        if shape and shape[0] == BATCH and name not in traced.changed
    }


def _numbers_behind(traced: Traced) -> dict[str, int]:
    """Numbers of the parameters and buffers that the network uses behind each position, by the position's node."""
    state = traced.graph_module.state_dict()
    behind: dict[str, int] = {}
    seen: set[str] = set()
    total = 0
    starts = {position.node for position in traced.positions}
    for node in reversed(traced.graph_module.graph.nodes):
        if node.name in starts:
            behind[node.name] = total
        if node.op in ("call_module", "get_attr") and (path := str(node.target)) not in seen:
            seen.add(path)
            total += sum(t.numel() for name, t in state.items() if name == path or name.startswith(f"{path}."))
    return behind


def _apart(positions: list[PositionInfo]) -> int:
    """Numbers of an image's activations at different positions."""
    return sum({p.name: math.prod(p.shape) for p in positions}.values())


def _last_width(traced: Traced) -> int:
    last = traced.positions[-1]
    return tap_width(last.channels, last.grid, 1) if last.name != INPUT else last.channels
