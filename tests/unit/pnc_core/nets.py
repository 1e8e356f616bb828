"""Small networks, images and modules for several tests."""

import copy
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import architectures, build_network
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.heads.fit import Accuracy
from pnc_core.method.insert import Insertion, stitch
from pnc_core.method.job import Job, prepare
from pnc_core.module.bundle import Bundle
from pnc_core.module.head import Head, tap_width
from pnc_core.module.manifest import FORMAT, HeadSpec, Manifest, Sizes
from pnc_core.module.module import module_tensors
from pnc_core.module.tail import Tail, extract, open_tail, with_parallel_adapters

Network = tuple[nn.Module, NetworkSpec]


def spec(
    architecture: str, size: int = 32, channels: int = 3, classes: Sequence[str] = "abc", **options
) -> NetworkSpec:
    return NetworkSpec(
        architecture=architecture,
        classes=tuple(classes),
        input_size=(channels, size, size),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        options=options,
    )


def families() -> list[str]:
    """The first architecture of every family; `benchmarks.architectures` covers all architectures."""
    by_family = {re.sub(r"[\d_].*", "", name): name for name in reversed(architectures())}
    return sorted(by_family.values())


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Set BatchNorm statistics, layer scales and zero biases to random values: ignoring one changes the logits."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):
            parameter.data.fill_(0.5)
    return network


def network(architecture: str, size: int = 32, channels: int = 3, classes: Sequence[str] = "abc", **options) -> Network:
    torch.manual_seed(0)
    made = spec(architecture, size, channels, classes, **options)
    return randomised(build_network(made)), made


def pictures(count: int, made: NetworkSpec, seed: int = 0) -> Tensor:
    return torch.randn(count, *made.input_size, generator=torch.Generator().manual_seed(seed))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def calibrated(tail: Tail, seed: int = 1) -> Tail:
    """Set the gates to values other than the identity, as after training."""
    generator = torch.Generator().manual_seed(seed)
    for gate in tail.gates.values():
        gate.scale.data.copy_(1 + 0.2 * torch.randn(gate.scale.shape, generator=generator))
        gate.shift.data.copy_(0.2 * torch.randn(gate.shift.shape, generator=generator))
    return tail


def some_channels(tail: Tail, share: float = 0.5, seed: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        g.name: torch.randperm(g.width, generator=generator)[: max(1, int(share * g.width))].sort().values
        for g in tail.groups
    }


def job(target: Network, source: Network, images: ImageSet, config: CloneConfig, **callbacks) -> Job:
    report = callbacks.get("report", lambda progress: None)
    cancelled = callbacks.get("cancelled", lambda: False)
    return prepare(trace(*target), trace(*source), images, config, report, cancelled)


def randomise(parameters: Iterable[nn.Parameter]) -> None:
    """Change trained parameters slightly, in place."""
    generator = torch.Generator().manual_seed(3)
    for tensor in parameters:
        tensor.data.add_(0.05 * torch.randn(tensor.shape, generator=generator))


def hand_made(
    target: Network,
    source: Network,
    images: ImageSet,
    position: Position,
    classes: tuple[str, ...],
    kind: str = "affine",
    offset: float = 0.0,
    *,
    inner: bool = False,
    locality_gate: float | None = None,
    last: bool = False,
) -> Bundle:
    """A full bundle without training: ridge adapter, random half of the channels, random head.

    `inner`: random parallel adapters. With `locality_gate` locality is strict, at that bias. With `last` the
    head reads the last taps alone.
    """
    config = CloneConfig(classes=classes, position=position, batch_size=64)
    made = job(target, source, images, config)
    opened = stitch(made, position, images.only((*target[1].classes, *classes)))
    small = extract(calibrated(opened.tail), some_channels(opened.tail))
    if inner:
        small = with_parallel_adapters(small)
        randomise([p for adapter in small.inner.values() for p in adapter.parameters()])
    insertion = Insertion(position, opened.adapter, small, opened.whole, opened.cloned)
    read = slice(-1, None) if last else slice(None)
    taps = made.target.taps[read]
    seen = sum(tap_width(p.channels, p.grid, 1) for p in taps)
    channels = small.tap_channels(made.source)[read]
    grids = [made.source.position(name).grid for name in small.taps[read]]
    cells = seen + sum(tap_width(width, grid, 1) for width, grid in zip(channels, grids, strict=True))
    head = Head(
        kind, cells, len(target[1].classes), len(classes), locality_gate=seen if locality_gate is not None else 0
    )
    randomise(head.parameters())
    head.offset.data.fill_(offset)
    if locality_gate is not None:
        head.shutter_bias.data.fill_(locality_gate)
    sizes = Sizes(
        source=made.source.parameter_count,
        module=small.parameter_count,
        adapter=insertion.trained_parameter_count,
        head=sum(p.numel() for p in head.parameters()),
    )
    score = Accuracy(1.0, 1.0)
    manifest = Manifest(
        format=FORMAT,
        payload="full",
        classes=classes,
        target=target[1],
        target_fingerprint=fingerprint(target[0]),
        source=source[1],
        source_fingerprint=fingerprint(source[0]),
        position=position,
        adapter_relu=opened.adapter.relu,
        adapter_resize=opened.adapter.resize,
        inner=tuple(small.inner),
        kept_fraction=small.parameter_count / opened.whole,
        head=HeadSpec(
            kind=kind,
            grid=1,
            target_taps=tuple(p.name for p in taps),
            module_taps=small.taps[read],
            strict=locality_gate is not None,
        ),
        sizes=sizes,
        validation={"old": score.old, "new": score.new, "average": score.average},
        config=config,
        created_by="a test",
    )
    return Bundle(manifest, module_tensors(insertion.adapter, insertion.tail, head))


def opened(architecture: str, size: int, start: int, **options) -> tuple[Tail, nn.Module, NetworkSpec, Tensor]:
    """A calibrated tail of a fresh network behind its position number `start`, and an activation for it."""
    net, made = network(architecture, size, **options)
    traced = trace(net, made)
    name = traced.positions[start].name
    tail = calibrated(open_tail(traced, name, [2, 0]))
    info = traced.position(name)
    phi = torch.randn(2, *info.shape, generator=torch.Generator().manual_seed(5))
    return tail, net, made, phi
