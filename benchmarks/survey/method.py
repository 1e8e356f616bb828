"""Run one architecture through the whole method: trace, prune, attach to a target, detach."""

import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet, preprocess
from pnc_core.method.clone import clone
from pnc_core.module.composed import attach, detach
from pnc_core.module.tail import Tail, extract, open_tail

Option = int | float | bool | str
OLD, NEW = ("a", "b"), ("c", "d", "e")
CLONED = ("e", "c")
COLLECTED = 20_000_000
"""Networks with more parameters and buffers than this are garbage-collected at once, because graphs are cyclic."""
TOLERANCE = 1e-5
"""Largest difference between masked and removed channels that passes, relative to the largest logit."""


@dataclass(frozen=True)
class Record:
    """Findings about one architecture."""

    architecture: str
    size: int
    """Height and width of the images."""
    numbers: int = 0
    """Parameters and buffers, with five classes."""
    positions: int = 0
    position: str = ""
    """Name of the middle position, where the network was cut."""
    groups: int = 0
    """Number of prunable groups of channels after that position; 0: a module holds the whole tail."""
    prunable_share: float = 0.0
    """Share of the tail's parameters that are removed when one channel of every group remains."""
    prunable_with_streams: float = 0.0
    """The same share when streams (residual, dense, concatenated) are prunable too."""
    max_difference: float = float("inf")
    """Largest difference between the logits with half the channels masked and those with them removed, divided by the
    largest logit."""
    restored: bool = False
    """Whether the target's fingerprint and logits were bit-identical after attach and detach."""
    seconds: float = 0.0
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        cut = self.groups == 0 or (self.max_difference < TOLERANCE and self.prunable_share > 0)
        return not self.problem and self.restored and cut


def small_size(architecture: str) -> int:
    """A small image size that the architecture accepts."""
    family = architecture.rpartition("/")[2]
    fixed = {"maxvit_t": 224, "inception_v3": 96, "vit_h_14": 56}
    return 32 if architecture.startswith("cifar/") else fixed.get(family, 64)


def examine(architecture: str, size: int, **options: Option) -> Record:
    """Run one architecture through the method. An exception becomes the record's `problem`."""
    started = time.monotonic()
    facts: dict[str, object] = {}
    try:
        for found in _findings(architecture, size, options):
            facts |= found
    except Exception as error:  # one architecture must not stop the run over all
        facts["problem"] = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
    return Record(architecture, size, seconds=round(time.monotonic() - started, 1), **facts)  # type: ignore[arg-type]


def _findings(architecture: str, size: int, options: dict[str, Option]) -> Iterable[dict[str, object]]:
    source = _network(architecture, size, NEW, 0, options)
    traced = trace(*source)
    middle = traced.positions[len(traced.positions) // 2]
    yield {"numbers": traced.parameter_count, "positions": len(traced.positions), "position": middle.name}
    yield {"prunable_with_streams": prunable_share(open_tail(traced, middle.name, [0, 1], residual=True))}
    tail = open_tail(traced, middle.name, [NEW.index(c) for c in CLONED])
    yield {"groups": len(tail.groups), "prunable_share": prunable_share(tail)}
    phi = torch.randn(4, *middle.shape, generator=torch.Generator().manual_seed(2))
    if tail.groups:
        yield {"max_difference": masked_against_extracted(tail, phi)}
    large = traced.parameter_count > COLLECTED
    del tail, traced
    if large:
        gc.collect()
    target = _network(architecture, size, OLD, 1, options)
    yield {"restored": _restored(target, source, Position(target=middle.name, source=middle.name))}


def _network(
    architecture: str, size: int, classes: tuple[str, ...], seed: int, options: dict[str, Option]
) -> tuple[nn.Module, NetworkSpec]:
    spec = NetworkSpec(
        architecture=architecture, classes=classes, input_size=(3, size, size), mean=(0.5,) * 3, std=(0.25,) * 3,
        options=options,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return enliven(build_network(spec), spec, seed).requires_grad_(False), spec


@torch.no_grad()
def enliven(network: nn.Module, spec: NetworkSpec, seed: int) -> nn.Module:
    """Randomise constant parameters and calibrate batch norms, so that mistakes change the logits.

    Untrained networks have zero heads, layer scales of 1e-6 and norms without effect, which would hide
    wrong channels. Changes the network in place and returns it in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.min() == parameter.max():
            _vary(parameter, generator)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean over all batches
    network(torch.randn(4, *spec.input_size, generator=generator))
    return network.eval()


def _vary(parameter: Tensor, generator: torch.Generator) -> None:
    value = float(parameter.flatten()[0])
    if value == 0:
        scale = 0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    else:
        middle = value if abs(value) > 0.01 else 0.5
        parameter.copy_(middle * (0.7 + 0.6 * torch.rand(parameter.shape, generator=generator)))


def prunable_share(tail: Tail) -> float:
    return round(1 - tail.count({group.name: 1 for group in tail.groups}) / tail.parameter_count, 4)


@torch.no_grad()
def masked_against_extracted(tail: Tail, activation: Tensor) -> float:
    """Largest difference of the logits between half of all channels masked and removed, relative to the largest logit.

    Args:
        tail: Opened tail; its gates are set to random values.
        activation: (N, *shape), the input of the tail.
    """
    generator = torch.Generator().manual_seed(3)
    for gate in tail.gates.values():
        gate.scale.copy_(1 + 0.1 * torch.randn(gate.scale.shape, generator=generator))
        gate.shift.copy_(0.1 * torch.randn(gate.shift.shape, generator=generator))
    kept = {
        g.name: torch.randperm(g.width, generator=generator)[: max(1, g.width // 2)].sort().values for g in tail.groups
    }
    removed, _ = extract(tail, kept).forward(activation.clone())
    whole, _ = tail.forward(activation.clone())
    tail.mask(kept)
    masked, _ = tail.forward(activation.clone())
    tail.mask(None)
    if not bool(torch.isfinite(masked).all()) or torch.allclose(masked, whole, rtol=1e-3):
        raise ArithmeticError(f"expected other logits than {whole[0].tolist()} when masked, got {masked[0].tolist()}")
    return float((masked - removed).abs().max() / masked.abs().max())


def _restored(target: tuple[nn.Module, NetworkSpec], source: tuple[nn.Module, NetworkSpec], at: Position) -> bool:
    """Clone, attach the full bundle, predict and detach. Returns whether the target is bit-identical afterwards."""
    network, spec = target
    images = _images(spec, (*OLD, *CLONED))
    x = preprocess(images.images[:4], spec)
    before, logits = fingerprint(network), network(x)
    config = CloneConfig(
        classes=CLONED, position=at, epochs=1, views=1, head="affine", batch_size=16, max_size=2, keep_anyway=True
    )
    composed = attach(network, clone(target, source, images, config), spec=spec)
    with torch.no_grad():
        composed_logits = composed(x)
    if composed_logits.shape != (4, 4) or not torch.equal(composed_logits[:, :2], logits):
        raise ArithmeticError("expected the target's own logits next to the module's, got others")
    return detach(composed) is network and fingerprint(network) == before and torch.equal(network(x), logits)


def _images(spec: NetworkSpec, classes: tuple[str, ...]) -> ImageSet:
    """Four random images of every class."""
    shape = (4 * len(classes), *spec.input_size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    return ImageSet(pixels, torch.arange(len(pixels)) % len(classes), classes)
