"""Executable forms of networks.

A `Trunk` runs a target, and a `Branch` runs a module. A `Program` is a trunk with the branches
that answer a request. Programs of one trunk share its pass over a batch, even with different branches.

Unless answers must be exact, trunk and branches run copies that are faster: batch norms are folded into
the preceding layer, and a whole copy runs as one call without Python's global lock, so that other threads
read and answer requests at the same time. Each copy is compared with its original before it is used.
The target itself stays unchanged.
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
"""Largest difference between a copy and its original, as a share of the largest number; they round differently."""
EXAMPLES = 3
"""Number of images for tracing and comparing a copy."""
_TRACING = threading.Lock()
"""Clearing torch's registry of traces would also remove a trace that another thread is making."""
Tensors = tuple[Tensor, ...]
Run = Callable[..., Tensors]
"""A function from tensors to tensors."""


@dataclass(frozen=True)
class Mode:
    """How networks are prepared for execution."""

    exact: bool = False
    """Run the original networks, with the same bits as a local `attach`."""
    precision: torch.dtype = torch.float32
    """Precision of the copies' layers. Heads and logits are always float32."""
    compile: bool = False
    """Make the copies with torch.compile, which takes a minute and a C++ compiler."""
    device: str = "cpu"
    """Device of the networks."""
    batch: int = 8
    """Most images in a batch. The cost of such a batch determines the number of threads."""
    threads: int | None = None
    """Number of threads for all networks; None: by the cost of a batch."""


@dataclass(frozen=True, eq=False)
class TrunkOutput:
    """Output of a trunk for a batch."""

    old: Tensor
    """Logits of the target, float32 (N, old)."""
    activations: dict[str, Tensor]
    """Activations by position, and the inputs of branches that take the image; empty if no branch needs them."""
    pooled: dict[int, Tensor]
    """Pooled taps, float32 (N, D), by grid of the heads."""

    def rows(self, some: Callable[[Tensor], Tensor], branches: Collection["Branch"]) -> "TrunkOutput":
        """Select rows of the tensors that some branches read.

        Args:
            some: Selects the rows of a tensor.
            branches: The branches.
        """
        activations = {name: some(self.activations[name]) for name in {branch.entry for branch in branches}}
        pooled = {grid: some(self.pooled[grid]) for grid in {b.grid for b in branches} if grid is not None}
        return TrunkOutput(some(self.old), activations, pooled)


class Trunk:
    """A target in executable form.

    Args:
        target: The target without modules.
        mode: How the target is prepared.
        macs: Multiply-accumulates of the target for one image, which determine the number of threads.
    """

    def __init__(self, target: Composed, mode: Mode, macs: int = 0) -> None:
        self.target, self.mode = target, mode
        self._spec, self._device = target.traced.spec, target.traced.device
        self._taps = target.traced.taps
        image = torch.randn(EXAMPLES, *self._spec.input_size, generator=torch.Generator().manual_seed(0))
        self._example = image.to(self._device)
        self._logits = self._prepared_reader(())
        self._read = self._prepared_reader(tuple(p.name for p in self._taps))
        self._pool: dict[int, Run] = {}
        self._threads = processors.threads_for(mode.batch * macs, mode.threads)

    def _prepared_reader(self, names: tuple[str, ...]) -> Run:
        part = Reader(self.target.traced, names).part
        assert part is not None  # the logits are always read
        precision = self.mode.precision
        return _prepared(
            _TrunkOutputs(part), lambda: _TrunkOutputs(_folded(part, precision), precision), (self._example,), self.mode
        )

    def prepare(self, images: Tensor | Views) -> Tensor:
        """Preprocess uint8 images for the target; float32 images are only moved to its device."""
        plain = Views.of(images).plain
        return preprocess(images, self._spec, self._device) if plain.dtype == torch.uint8 else plain.to(self._device)

    def read(self, x: Tensor, branches: Collection["Branch"], images: Views | None = None) -> TrunkOutput:
        """Run the target on a batch.

        Args:
            x: Images from `prepare`.
            branches: Branches whose inputs the output must hold; empty: only logits are computed.
            images: The images before `prepare`, for branches that take the image; None: such a branch takes `x`.
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
        """Output for a few images of noise, for preparing branches."""
        with torch.inference_mode():
            return self._seen(self._example, () if grid is None else (grid,))

    def _seen(self, x: Tensor, grids: Iterable[int]) -> TrunkOutput:
        old, *taps = self._read(x)
        activations = {INPUT: x, **dict(zip((p.name for p in self._taps), taps, strict=True))}
        return TrunkOutput(old, activations, {grid: self._pooling(grid)(*taps)[0] for grid in grids})

    def _pooling(self, grid: int) -> Run:
        """Pooling for a grid. The first branch with this grid prepares it before the branch is served."""
        if grid not in self._pool:
            pool = _Pooling([p.axis for p in self._taps], grid)
            with torch.inference_mode():
                taps = tuple(self._read(self._example)[1:])
            self._pool[grid] = _prepared(pool, lambda: pool, taps, self.mode)
        return self._pool[grid]


class Branch:
    """A module in executable form.

    Args:
        module: The module, attached to the trunk's target.
        trunk: The trunk whose output the module reads.
    """

    def __init__(self, module: ClonedModule, trunk: Trunk) -> None:
        head: Head = module.head
        self.module, self.entry = module, entry_of(module.manifest)
        self.takes_image = takes_image(module.manifest)
        """Whether the module takes the image preprocessed for its source, and no activation of the target."""
        self.grid = module.manifest.head.grid if head.needs_taps else None
        """Grid of the pooled taps that the head reads; None: the head reads no taps."""
        taps = map(trunk.target.traced.position, module.manifest.head.target_taps)
        self._seen = 0 if self.grid is None else sum(tap_width(p.channels, p.grid, self.grid) for p in taps)
        """Number of pooled features that the head reads, which are the last ones."""
        example = trunk.example(self.grid)
        if self.takes_image:
            example.activations[self.entry] = phi_of(module.manifest, example.activations)
        examples = self._inputs(example)
        precision = trunk.mode.precision
        # A locality gate runs the module only if the gate opens for the batch. A trace cannot hold this branch.
        self._run = _prepared(
            _BranchModule(module),
            lambda: _BranchModule(_copied(module, precision), precision),
            examples,
            trunk.mode,
            trace=not module.manifest.head.strict,
        )
        self._copies = 1 if trunk.mode.exact else 2

    @property
    def bytes(self) -> int:
        """Bytes of memory of the module and its copy."""
        numbers: dict[str, Tensor] = self.module.state_dict()
        return self._copies * sum(t.numel() * t.element_size() for t in numbers.values())

    def __call__(self, output: TrunkOutput) -> tuple[Tensor | None, Tensor]:
        """The correction of the old logits, float32 (N, old), or None, and the module's own logits, float32 (N, K)."""
        *correction, own = self._run(*self._inputs(output))
        return (correction[0] if correction else None), own

    def entered(self, x: Tensor, images: Views | None) -> Tensor:
        """Preprocess images for the module's source.

        Args:
            x: The images preprocessed for the target.
            images: The images before `Trunk.prepare`. The result is made from uint8 images if they are given, otherwise
                from `x`.
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
    """The same network in the library's form: names and order of classes, and the join of logits."""
    trunk: Trunk
    branches: tuple[Branch, ...] = ()

    @property
    def sees(self) -> list[Geometry]:
        """Geometries of the networks that see a decoded image, the target's first."""
        return geometries_of(self.network.sees)

    def answer(self, output: TrunkOutput) -> Tensor:
        """Logits, float32 (N, classes)."""
        return self.network.join(output.old, [branch(output) for branch in self.branches])


def put_together(trunk: Trunk, branches: Sequence[Branch]) -> Program:
    """Combine a trunk and branches, without copying or preparing anything."""
    target = trunk.target
    network = Composed(target.target, target.traced, [b.module for b in branches]) if branches else target
    return Program(network, trunk, tuple(branches))


class _TrunkOutputs(nn.Module):
    """From images to logits and activations."""

    def __init__(self, part: fx.GraphModule, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.part, self.precision = part, precision

    def forward(self, x: Tensor) -> Tensors:
        logits, taps = self.part(x.to(self.precision))
        return (logits.float(), *taps)


class _Pooling(nn.Module):
    """From taps to the pooled features that heads read."""

    def __init__(self, axes: Sequence[int], grid: int) -> None:
        super().__init__()
        self.axes, self.grid = axes, grid

    def forward(self, *taps: Tensor) -> Tensors:
        return (pool_taps(taps, self.axes, self.grid),)


class _BranchModule(nn.Module):
    """From an activation and pooled taps to the module's correction, if it has one, and its own logits."""

    def __init__(self, module: ClonedModule, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.module, self.precision = module, precision

    def forward(self, phi: Tensor, seen: Tensor) -> Tensors:
        correction, own = self.module(phi.to(self.precision), seen)
        return (own,) if correction is None else (correction, own)


def _copied(module: ClonedModule, precision: torch.dtype) -> ClonedModule:
    """Copy without batch norms and without gates that change nothing. The head stays float32."""
    made = copy.deepcopy(module)
    made.part = _folded(_without_identity_gates(made.part), precision)
    made.adapter.to(precision)
    return made


def _folded(part: fx.GraphModule, precision: torch.dtype) -> fx.GraphModule:
    """Copy with batch norms folded into the preceding layers."""
    folded = fuse(part, no_trace=True)
    assert isinstance(folded, fx.GraphModule)
    return folded.to(precision)


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


def _prepared(
    original: nn.Module, make_copy: Callable[[], nn.Module], examples: Tensors, mode: Mode, *, trace: bool = True
) -> Run:
    """A faster copy of a network. In exact mode, or if the copy's answers differ, the original.

    Args:
        original: The original layers.
        make_copy: Makes the copy.
        examples: Inputs for comparing both. The trace is made without the first image, so that the comparison detects
            a trace that works for one batch size only.
        mode: How the copy is prepared.
        trace: Whether the copy may be traced to one call; otherwise its layers are called one by one.
    """
    if mode.exact:
        return original
    with torch.inference_mode():
        try:
            copied = make_copy().eval()
            run: Run = copied
            if mode.compile:
                run = torch.compile(copied, dynamic=False)
            elif trace:
                run = _traced(copied, tuple(e[1:] for e in examples))
            wrong = _difference(run(*examples), original(*examples))
        except Exception as error:  # copying may fail in any way; the original always works
            log.warning("run without a faster copy, because making it failed: %s", error)
            return original
    if not wrong <= TOLERANCE[mode.precision]:
        log.warning("run without a faster copy, because its answers differ by %g of the largest number", wrong)
        return original
    return run


def _traced(network: nn.Module, examples: Tensors) -> Run:
    """Trace a network to one call that runs without Python's global lock.

    torch keeps a trace with all its constants until the process ends, but frees a loaded program. The trace is
    therefore saved, loaded again and cleared, because modules come and go. Nothing else in a serving process uses
    traces.
    """
    file = io.BytesIO()
    with _TRACING:
        torch.jit.save(torch.jit.trace(network, examples, check_trace=False), file)
        torch._C._jit_clear_class_registry()
    file.seek(0)
    traced: Run = torch.jit.load(file)
    return traced


def _difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference, as a share of the largest number of the tensor."""
    pairs = ((f.float(), w.float()) for f, w in zip(found, wanted, strict=True))
    return max(float((f - w).abs().max() / w.abs().max().clamp_min(1e-12)) for f, w in pairs)
