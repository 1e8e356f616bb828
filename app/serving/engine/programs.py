"""Executable forms of networks.

A `Trunk` runs a target, and a `Branch` runs a module. A `Program` is a trunk with the branches
that answer a request. Programs of one trunk share its pass over a batch, even with different branches.

Unless answers must be exact, trunk and branches run copies that are faster. At first torch runs them, with batch norms
folded into the preceding layer. On the processor, programs for ONNX Runtime replace these copies as soon as they are
exported (`app.serving.engine.exporter`). The target alone runs by one engine only, which is chosen before it is served.
Each copy and each program is compared with its original before it is used. The target itself stays unchanged.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from app.process.resources import processors
from app.serving.engine.copies import EXAMPLES, Run, forget_sources, prepared
from app.serving.engine.exporter import Model, Order, StoredFile
from app.serving.engine.exporting import branch_order
from app.serving.engine.modes import Mode
from app.serving.engine.parts import BranchPart, PoolingPart, Reads, TrunkPart, copied, folded, without_locality_gate
from app.serving.engine.sessions import Session, checked
from app.serving.engine.trunk_programs import TrunkPrograms
from pnc_core.config import geometries_of
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import INPUT
from pnc_core.images import Views, preprocess
from pnc_core.module.composed import Composed, with_composition
from pnc_core.module.composition import Composition
from pnc_core.module.entry import entry_of, from_target, phi_of, takes_image
from pnc_core.module.head import SHUT, Head, tap_width
from pnc_core.module.module import ClonedModule
from pnc_core.preprocessing import Geometry

INPUTS = ("phi", "seen")
"""Inputs of a branch: the activation that the module takes, and the target's pooled taps."""


@dataclass(frozen=True, eq=False)
class TrunkOutput:
    """Output of a trunk for a batch."""

    old: Tensor
    """Logits of the target, float32 (N, old)."""
    activations: dict[str, Tensor]
    """Activations by position, and the inputs of branches that take the image; empty if no branch needs them."""
    pooled: dict[int, Tensor]
    """Pooled taps, float32 (N, D), by grid of the heads."""

    def rows(
        self, some: Callable[[Tensor], Tensor], branches: Collection["Branch"], common: "CommonHead | None" = None
    ) -> "TrunkOutput":
        """Select rows of the tensors that some branches and a common head read.

        Args:
            some: Selects the rows of a tensor.
            branches: The branches.
            common: The common head; None: there is none.
        """
        activations = {name: some(self.activations[name]) for name in {branch.entry for branch in branches}}
        grids = {b.grid for b in branches if b.grid is not None} | ({CommonHead.grid} if common else set())
        pooled = {grid: some(self.pooled[grid]) for grid in grids}
        return TrunkOutput(some(self.old), activations, pooled)


class Trunk:
    """A target in executable form.

    Args:
        target: The target without modules.
        mode: How the target is prepared.
        macs: Multiply-accumulates of the target for one image, which determine the number of threads.
        file: The target's weights in the store; None: the target is not exported.
    """

    def __init__(self, target: Composed, mode: Mode, macs: int = 0, file: StoredFile | None = None) -> None:
        self.target, self.mode = target, mode
        self._spec, self._device = target.traced.spec, target.traced.device
        self._taps = target.traced.taps
        image = torch.randn(EXAMPLES, *self._spec.input_size, generator=torch.Generator().manual_seed(0))
        self._example = image.to(self._device)
        self._logits = self._prepared_reader(())
        self._read = self._prepared_reader(tuple(p.name for p in self._taps))
        self._pool: dict[int, Run] = {}
        self.threads = processors.threads_for(mode.batch * macs, mode.threads)
        self._programs: TrunkPrograms | None = None
        self._alone_by_program: bool | None = None
        """Whether ONNX Runtime runs the target alone; None: not chosen yet."""
        self._asked_at: float | None = None
        """Time on the monotonic clock at which the engine of the target alone was first asked for."""
        if mode.exporter is not None and file is not None:
            self._programs = TrunkPrograms(target.traced, self._example, mode.exporter, file, self.threads)

    def _prepared_reader(self, names: tuple[str, ...]) -> Run:
        part = Reader(self.target.traced, names).part
        assert part is not None  # the logits are always read
        precision = self.mode.precision
        return prepared(
            TrunkPart(part), lambda: TrunkPart(folded(part, precision), precision), (self._example,), self.mode
        )

    def ask_for_programs(self, branches: Collection["Branch"], common: Collection["CommonHead"] = ()) -> None:
        """Ask for programs of the target alone, and of the target with all outputs that branches and heads read."""
        if self._programs is not None:
            self._programs.ask(Reads())
            self._programs.ask(_reads_of(branches, common))

    def has_engine(self, seconds: float) -> bool:
        """Whether the engine that runs the target alone is chosen. The choice never changes.

        Engines differ in the last bits. With one engine, the logits of the target after detaching are bit for bit those
        before attaching. ONNX Runtime is chosen if its program is ready within `seconds` of the first call, else torch.
        """
        if self._programs is None or self._alone_by_program is not None:
            return True
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._programs.ask(Reads())
        if self._programs.find(Reads()) is not None:
            self._alone_by_program = True
        elif self._programs.has_failed(Reads()) or time.monotonic() - self._asked_at >= seconds:
            self._alone_by_program = False
        return self._alone_by_program is not None

    def program(self, reads: Reads) -> Session | None:
        """The program for ONNX Runtime with at least these outputs; None: there is none yet."""
        found = None if self._programs is None else self._programs.find(reads)
        return None if found is None else found[1]

    def prepare(self, images: Tensor | Views) -> Tensor:
        """Preprocess uint8 images for the target; float32 images are only moved to its device."""
        plain = Views.of(images).plain
        return preprocess(images, self._spec, self._device) if plain.dtype == torch.uint8 else plain.to(self._device)

    def read(
        self,
        x: Tensor,
        branches: Collection["Branch"],
        images: Views | None = None,
        common: Collection["CommonHead"] = (),
    ) -> TrunkOutput:
        """Run the target on a batch.

        Args:
            x: Images from `prepare`.
            branches: Branches whose inputs the output must hold; empty: only logits are computed.
            images: The images before `prepare`, for branches that take the image; None: such a branch takes `x`.
            common: Common heads whose pooled taps the output must hold.
        """
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        output = self._by_program(x, _reads_of(branches, common))
        if output is None:
            if not branches:
                return TrunkOutput(self._logits(x)[0], {}, {})
            grids = {branch.grid for branch in branches if branch.grid is not None}
            output = self._seen(x, grids | {head.grid for head in common})
        direct = {branch.entry: branch for branch in branches if branch.takes_image}
        output.activations.update((name, branch.entered(x, images)) for name, branch in direct.items())
        return output

    def _by_program(self, x: Tensor, reads: Reads) -> TrunkOutput | None:
        """Run the target as a program for ONNX Runtime; None: there is none yet."""
        if reads == Reads() and self._alone_by_program is False:
            return None
        found = None if self._programs is None else self._programs.find(reads)
        if found is None:
            return None
        made, session = found
        if reads == Reads():
            self._logits = self._read  # frees the copy, since the program of the target alone stays
        old, *others = session(x)
        count = len(made.entries)
        grids = (grid for grid, _ in made.pools)
        activations = {INPUT: x, **dict(zip(made.entries, others[:count], strict=True))}
        return TrunkOutput(old, activations, dict(zip(grids, others[count:], strict=True)))

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
            pool = PoolingPart([p.axis for p in self._taps], grid)
            with torch.inference_mode():
                taps = tuple(self._read(self._example)[1:])
            self._pool[grid] = prepared(pool, lambda: pool, taps, self.mode)
        return self._pool[grid]


class Branch:
    """A module in executable form.

    Args:
        module: The module, attached to the trunk's target.
        trunk: The trunk whose output the module reads.
        file: The module's bundle in the store; None: the module is not exported.
        thin_digest: Digest of the module's thin bundle, by which a composition names the module.
    """

    def __init__(
        self, module: ClonedModule, trunk: Trunk, file: StoredFile | None = None, thin_digest: str = ""
    ) -> None:
        head: Head = module.head
        self.module, self.entry = module, entry_of(module.manifest)
        self.thin_digest = thin_digest
        self.takes_image = takes_image(module.manifest)
        """Whether the module takes the image preprocessed for its source, and no activation of the target."""
        self.grid = module.manifest.head.grid if head.needs_taps else None
        """Grid of the pooled taps that the head reads; None: the head reads no taps."""
        self.taps = 0 if self.grid is None else len(module.manifest.head.target_taps)
        """Number of the target's taps that the head reads, which are the last ones."""
        taps = map(trunk.target.traced.position, module.manifest.head.target_taps)
        self._seen = 0 if self.grid is None else sum(tap_width(p.channels, p.grid, self.grid) for p in taps)
        """Number of pooled features that the head reads, which are the last ones."""
        mode, self._trunk, self._file = trunk.mode, trunk, file
        self._is_gated = head.strict and not mode.exact and not mode.compile
        """Whether the locality gate is computed here, so that the module runs only on the images that pass it."""
        inner = without_locality_gate(module) if self._is_gated else module
        self._original, self._asked = BranchPart(inner), False
        examples = self._examples()
        self._shapes = {name: tuple(one.shape[1:]) for name, one in zip(INPUTS, examples, strict=True)}
        self._run: Run = prepared(
            self._original, lambda: BranchPart(copied(inner, mode.precision), mode.precision), examples, mode
        )
        self._copies = 1 if mode.exact else 2
        forget_sources(mode)

    def _examples(self) -> tuple[Tensor, Tensor]:
        example = self._trunk.example(self.grid)
        if self.takes_image:
            example.activations[self.entry] = phi_of(self.module.manifest, example.activations)
        return self._inputs(example)

    @property
    def bytes(self) -> int:
        """Bytes of memory of the module and its copy."""
        numbers: dict[str, Tensor] = self.module.state_dict()
        return self._copies * sum(t.numel() * t.element_size() for t in numbers.values())

    def ask_for_program(self) -> None:
        """Ask once for a program for ONNX Runtime. It replaces the copy as soon as it is exported."""
        exporter = self._trunk.mode.exporter
        if exporter is None or self._file is None or self._asked:
            return
        self._asked = True
        exporter.ask(Order(self._file, branch_order(self._shapes)), self._receive)

    def _receive(self, order: Order, model: Model) -> None:
        del order
        session = Session(model, INPUTS, self._trunk.threads)
        self._run = checked(session, self._original, self._examples())

    def __call__(self, output: TrunkOutput) -> tuple[Tensor | None, Tensor]:
        """The correction of the old logits, float32 (N, old), or None, and the module's own logits, float32 (N, K)."""
        inputs = self._inputs(output)
        if self._is_gated:
            return None, self._behind_gate(*inputs)
        *correction, own = self._run(*inputs)
        return (correction[0] if correction else None), own

    def _behind_gate(self, phi: Tensor, seen: Tensor) -> Tensor:
        head: Head = self.module.head
        opened = head.opens(seen)
        new = seen.new_full((len(seen), len(self.module.manifest.classes)), SHUT)
        if bool(opened.any()):
            new[opened] = self._run(phi[opened], seen[opened])[-1]
        return new

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


@dataclass(frozen=True)
class CommonHead:
    """What a composition's common head reads: the target's last taps, pooled to one cell."""

    taps: int
    """Number of the target's taps that it reads, which are the last ones."""
    features: int
    """Number of pooled features that it reads, which are the last ones."""
    grid: ClassVar[int] = 1

    @classmethod
    def of(cls, network: Composed) -> "CommonHead | None":
        """The common head of a composed network; None: it has none."""
        head: Head | None = network.common
        return None if head is None else cls(len(network.common_taps), head.weight.shape[1])


def _reads_of(branches: Collection[Branch], common: Collection[CommonHead]) -> Reads:
    entries = {b.entry for b in branches if not b.takes_image and b.entry != INPUT}
    pools = {(b.grid, b.taps) for b in branches if b.grid is not None} | {(head.grid, head.taps) for head in common}
    return Reads.of(entries, pools)


@dataclass(frozen=True, eq=False)
class Program:
    """A trunk with the branches that answer a request."""

    network: Composed
    """The same network in the library's form: names and order of classes, and the join of logits."""
    trunk: Trunk
    branches: tuple[Branch, ...] = ()
    common: CommonHead | None = None
    """The common head of the composition; None: there is none."""
    composition: str | None = None
    """Id of the composition; None: the modules have plain scales."""

    @property
    def heads(self) -> tuple[CommonHead, ...]:
        """The common head, if there is one."""
        return () if self.common is None else (self.common,)

    @property
    def sees(self) -> list[Geometry]:
        """Geometries of the networks that see a decoded image, the target's first."""
        return geometries_of(self.network.sees)

    def ask_for_programs(self) -> None:
        """Ask for programs for ONNX Runtime. Until they are there, torch runs the networks."""
        self.trunk.ask_for_programs(self.branches, self.heads)
        for branch in self.branches:
            branch.ask_for_program()

    def answer(self, output: TrunkOutput) -> Tensor:
        """Logits, float32 (N, classes)."""
        seen = None if self.common is None else output.pooled[self.common.grid][:, -self.common.features :]
        return self.network.finish(output.old, [branch(output) for branch in self.branches], seen)


def put_together(
    trunk: Trunk, branches: Sequence[Branch], composition: tuple[str, Composition] | None = None
) -> Program:
    """Combine a trunk and branches, without copying or preparing anything.

    Args:
        trunk: The target.
        branches: The modules.
        composition: Id and content of their composition; None: they have plain scales.

    Raises:
        MismatchError: the composition is for another target or other modules.
    """
    target = trunk.target
    network = Composed(target.target, target.traced, [b.module for b in branches]) if branches else target
    if composition is None:
        return Program(network, trunk, tuple(branches))
    network = with_composition(network, [b.thin_digest for b in branches], composition[1])
    return Program(network, trunk, tuple(branches), CommonHead.of(network), composition[0])
