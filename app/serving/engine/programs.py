"""Networks in the form in which they are run.

A target is run as a `Trunk` and each module as a `Branch`; a `Program` is a trunk with the branches
that answer a request. Programs of one trunk share its pass over a batch, whichever branches they have.

Unless answers must be exact, trunk and branches are copies made for speed: batch norms are folded into
the layer before them, and a whole copy is one call that leaves Python's lock alone, so that requests are
read and answered meanwhile. Each copy is compared with what it was made of before it is used.
The target itself stays as it is.
"""

import copy
import io
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from app.process import processors
from pnc_core.config import geometries_of
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import INPUT
from pnc_core.images import Views, preprocess
from pnc_core.module.composed import Composed
from pnc_core.module.entry import entry_of, from_target, phi_of, takes_image
from pnc_core.module.head import Head, pool_taps, tap_width
from pnc_core.module.module import ClonedModule
from pnc_core.module.tail import Gate
from pnc_core.preprocessing import Geometry

log = logging.getLogger(__name__)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""How far a copy's numbers may lie from the original's, as a share of the largest: they round differently."""
EXAMPLES = 3
"""Images that a copy is recorded and compared with."""
_RECORDING = threading.Lock()
"""Dropping a record drops those that others are making."""
Tensors = tuple[Tensor, ...]
Run = Callable[..., Tensors]
"""Tensors in, tensors out."""


@dataclass(frozen=True)
class Mode:
    """How networks are made ready to be run."""

    exact: bool = False
    """Run them as they are: the bits of a local `attach`."""
    precision: torch.dtype = torch.float32
    """Of the copies' layers; heads and logits are float32 always."""
    compile: bool = False
    """Let torch.compile make the copies, which takes a minute and a compiler."""
    device: str = "cpu"
    """Where networks lie and run."""
    batch: int = 8
    """Images that are run at once, at most: what it costs decides how many threads run a network."""
    threads: int | None = None
    """How many run all networks, instead."""


@dataclass(frozen=True, eq=False)
class TrunkOutput:
    """What a trunk has seen in a batch."""

    old: Tensor
    """Its logits (N, old)."""
    activations: dict[str, Tensor]
    """By position, and the images of branches that take the image itself; empty where no branch needs them."""
    pooled: dict[int, Tensor]
    """Pooled taps (N, D) by grid, as heads read them."""

    def rows(self, some: Callable[[Tensor], Tensor], branches: Collection["Branch"]) -> "TrunkOutput":
        """Some rows of what some branches read.

        Args:
            some: Picks the rows of one tensor.
            branches: Who reads.
        """
        activations = {name: some(self.activations[name]) for name in {branch.entry for branch in branches}}
        pooled = {grid: some(self.pooled[grid]) for grid in {b.grid for b in branches} if grid is not None}
        return TrunkOutput(some(self.old), activations, pooled)


class Trunk:
    """A target as it is run.

    Args:
        target: With nothing attached.
        mode: How it is made ready.
        macs: Its multiply-accumulates of one image, which decide how many threads it is worth.
    """

    def __init__(self, target: Composed, mode: Mode, macs: int = 0) -> None:
        self.target, self.mode = target, mode
        self._spec, self._device = target.traced.spec, target.traced.device
        self._taps = target.traced.taps
        image = torch.randn(EXAMPLES, *self._spec.input_size, generator=torch.Generator().manual_seed(0))
        self._example = image.to(self._device)
        self._logits = self._ready_to_read(())
        self._read = self._ready_to_read(tuple(p.name for p in self._taps))
        self._pool: dict[int, Run] = {}
        self._threads = processors.threads_for(mode.batch * macs, mode.threads)

    def _ready_to_read(self, names: tuple[str, ...]) -> Run:
        part = Reader(self.target.traced, names).part
        assert part is not None  # logits are always wanted
        precision = self.mode.precision
        return _ready(
            _TrunkOutputs(part), lambda: _TrunkOutputs(_folded(part, precision), precision), (self._example,), self.mode
        )

    def prepare(self, images: Tensor | Views) -> Tensor:
        """uint8 images preprocessed for the target, or float32 images that are preprocessed already; on its device."""
        plain = Views.of(images).plain
        return preprocess(images, self._spec, self._device) if plain.dtype == torch.uint8 else plain.to(self._device)

    def read(self, x: Tensor, branches: Collection["Branch"], images: Views | None = None) -> TrunkOutput:
        """One pass over a batch.

        Args:
            x: Prepared images.
            branches: What they read is handed out; without any, the logits alone.
            images: The images that `x` was prepared from, for branches that take the image itself.
        """
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        if not branches:
            return TrunkOutput(self._logits(x)[0], {}, {})
        output = self._seen(x, {branch.grid for branch in branches if branch.grid is not None})
        direct = {branch.entry: branch for branch in branches if branch.takes_image}
        output.activations.update((name, branch.entered(x, images)) for name, branch in direct.items())
        return output

    def example(self, grid: int | None) -> TrunkOutput:
        """What it sees in a few images of noise, to make branches ready with."""
        with torch.inference_mode():
            return self._seen(self._example, () if grid is None else (grid,))

    def _seen(self, x: Tensor, grids: Iterable[int]) -> TrunkOutput:
        old, *taps = self._read(x)
        activations = {INPUT: x, **dict(zip((p.name for p in self._taps), taps, strict=True))}
        return TrunkOutput(old, activations, {grid: self._pooling(grid)(*taps)[0] for grid in grids})

    def _pooling(self, grid: int) -> Run:
        """Recorded when a branch is the first to need it, which is before it is served."""
        if grid not in self._pool:
            pool = _Pooling([p.axis for p in self._taps], grid)
            with torch.inference_mode():
                taps = tuple(self._read(self._example)[1:])
            self._pool[grid] = _ready(pool, lambda: pool, taps, self.mode)
        return self._pool[grid]


class Branch:
    """A module as it is run beside a trunk.

    Args:
        module: Attached to the trunk's target.
        trunk: What it reads.
    """

    def __init__(self, module: ClonedModule, trunk: Trunk) -> None:
        head: Head = module.head
        self.module, self.entry = module, entry_of(module.manifest)
        self.takes_image = takes_image(module.manifest)
        """Does it take the image itself, preprocessed for its source?"""
        self.grid = module.manifest.head.grid if head.needs_taps else None
        """Of the trunk's pooled taps that its head looks at; none: it does not."""
        taps = map(trunk.target.traced.position, module.manifest.head.target_taps)
        self._seen = 0 if self.grid is None else sum(tap_width(p.channels, p.grid, self.grid) for p in taps)
        """How many of those features, the last ones, are its."""
        example = trunk.example(self.grid)
        if self.takes_image:
            example.activations[self.entry] = phi_of(module.manifest, example.activations)
        examples = self._inputs(example)
        precision = trunk.mode.precision
        # A locality gate looks at the batch and runs the rest only if it opens: that cannot be recorded.
        self._run = _ready(
            _BranchModule(module),
            lambda: _BranchModule(_copied(module, precision), precision),
            examples,
            trunk.mode,
            record=not module.manifest.head.strict,
        )
        self._copies = 1 if trunk.mode.exact else 2

    @property
    def bytes(self) -> int:
        """What it takes in memory, its copy included."""
        numbers: dict[str, Tensor] = self.module.state_dict()
        return self._copies * sum(t.numel() * t.element_size() for t in numbers.values())

    def __call__(self, output: TrunkOutput) -> tuple[Tensor | None, Tensor]:
        """Correction (N, old) of the old logits, if it makes one, and its own logits (N, K)."""
        *correction, own = self._run(*self._inputs(output))
        return (correction[0] if correction else None), own

    def entered(self, x: Tensor, images: Views | None) -> Tensor:
        """The images preprocessed for the source; made from `x` unless the uint8 images are there.

        Args:
            x: The images as the target takes them.
            images: uint8, or float32 that is preprocessed for the target.
        """
        manifest = self.module.manifest
        if images is not None and images.plain.dtype == torch.uint8:
            return preprocess(images, manifest.source, x.device)
        return from_target(x, manifest.target, manifest.source)

    def _inputs(self, output: TrunkOutput) -> tuple[Tensor, Tensor]:
        old = output.old
        seen = old.new_empty(len(old), 0) if self.grid is None else output.pooled[self.grid][:, -self._seen :]
        return output.activations[self.entry], seen


@dataclass(frozen=True, eq=False)
class Program:
    """A trunk with the branches that answer a request."""

    network: Composed
    """The same as the library puts it together: names, order, and how logits are joined."""
    trunk: Trunk
    branches: tuple[Branch, ...] = ()

    @property
    def sees(self) -> list[Geometry]:
        """How the networks want a decoded image, the target first."""
        return geometries_of(self.network.sees)

    def answer(self, output: TrunkOutput) -> Tensor:
        """Logits (N, classes)."""
        return self.network.join(output.old, [branch(output) for branch in self.branches])


def put_together(trunk: Trunk, branches: Sequence[Branch]) -> Program:
    """Put a trunk and branches together; nothing is copied or made ready here."""
    target = trunk.target
    network = Composed(target.target, target.traced, [b.module for b in branches]) if branches else target
    return Program(network, trunk, tuple(branches))


class _TrunkOutputs(nn.Module):
    """Images -> logits and activations."""

    def __init__(self, part: fx.GraphModule, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.part, self.precision = part, precision

    def forward(self, x: Tensor) -> Tensors:
        logits, taps = self.part(x.to(self.precision))
        return (logits.float(), *taps)


class _Pooling(nn.Module):
    """Taps -> the numbers that heads read."""

    def __init__(self, axes: Sequence[int], grid: int) -> None:
        super().__init__()
        self.axes, self.grid = axes, grid

    def forward(self, *taps: Tensor) -> Tensors:
        return (pool_taps(taps, self.axes, self.grid),)


class _BranchModule(nn.Module):
    """Activation and pooled taps -> the module's own logits, behind its correction if it makes one."""

    def __init__(self, module: ClonedModule, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.module, self.precision = module, precision

    def forward(self, phi: Tensor, seen: Tensor) -> Tensors:
        correction, own = self.module(phi.to(self.precision), seen)
        return (own,) if correction is None else (correction, own)


def _copied(module: ClonedModule, precision: torch.dtype) -> ClonedModule:
    """A copy without batch norms and without gates that leave everything as it is; the head stays float32."""
    made = copy.deepcopy(module)
    made.part = _folded(_without_open_gates(made.part), precision)
    made.adapter.to(precision)
    return made


def _folded(part: fx.GraphModule, precision: torch.dtype) -> fx.GraphModule:
    """A copy whose batch norms are part of the layers before them."""
    folded = fuse(part, no_trace=True)
    assert isinstance(folded, fx.GraphModule)
    return folded.to(precision)


def _without_open_gates(part: Any) -> fx.GraphModule:
    """Take out, in place, the gates that were never calibrated: y = 1 x + 0."""
    assert isinstance(part, fx.GraphModule)
    for node in list(part.graph.nodes):
        gate = part.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(gate, Gate) and gate.mask is None and bool((gate.scale == 1).all() and (gate.shift == 0).all()):
            node.replace_all_uses_with(node.args[0])
            part.graph.erase_node(node)
    part.recompile()
    return part


def _ready(
    original: nn.Module, made: Callable[[], nn.Module], examples: Tensors, mode: Mode, *, record: bool = True
) -> Run:
    """A copy made for speed; the original where bits count, or where the copy does not answer the same.

    Args:
        original: Runs the layers as they are.
        made: Makes the copy.
        examples: What both are tried with; recorded without the first image, so that a copy that
            knows only one size of batch is found out.
        mode: How it is made.
        record: Whether it may become one call; else its layers are called one by one.
    """
    if mode.exact:
        return original
    with torch.inference_mode():
        try:
            copied = made().eval()
            run: Run = copied
            if mode.compile:
                run = torch.compile(copied, dynamic=False)
            elif record:
                run = _recorded(copied, tuple(e[1:] for e in examples))
            wrong = _difference(run(*examples), original(*examples))
        except Exception as error:  # networks of any kind come here; what cannot be copied is run as it is
            log.warning("run as it is, since it cannot be copied for speed: %s", error)
            return original
    if not wrong <= TOLERANCE[mode.precision]:
        log.warning("run as it is, since a copy for speed lies off by %g of its largest number", wrong)
        return original
    return run


def _recorded(network: nn.Module, examples: Tensors) -> Run:
    """One call that leaves Python's lock alone.

    Torch keeps what it records, with all constants, for as long as the process lives, but lets go of what
    it has read. So it is written and read again, and the record dropped: modules come and go. Nothing else
    in a serving process runs what was recorded.
    """
    file = io.BytesIO()
    with _RECORDING:
        torch.jit.save(torch.jit.trace(network, examples, check_trace=False), file)
        torch._C._jit_clear_class_registry()
    file.seek(0)
    recorded: Run = torch.jit.load(file)
    return recorded


def _difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference, as a share of the largest number of its tensor."""
    pairs = ((f.float(), w.float()) for f, w in zip(found, wanted, strict=True))
    return max(float((f - w).abs().max() / w.abs().max().clamp_min(1e-12)) for f, w in pairs)
