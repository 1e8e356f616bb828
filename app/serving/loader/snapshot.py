"""Snapshots: immutable revisions of a deployment, a target with its modules.

A snapshot refers to its target and changes nothing on it, so that the next
snapshot starts from exactly the same target.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial

import orjson
import torch
from torch import Tensor

from app.deployments.desired import DesiredCanary, DesiredComposition, DesiredDeployment, DesiredModule
from app.errors import NotFound
from app.serving.engine import metrics
from app.serving.engine.exporter import StoredFile
from app.serving.engine.modes import Mode
from app.serving.engine.programs import Branch, Program, Trunk, put_together
from app.store.objects import verified_file
from app.zoo import Zoo
from pnc_core.config import NetworkSpec
from pnc_core.errors import MismatchError, NetworkError
from pnc_core.graph.architectures import load_network
from pnc_core.identity import fingerprint
from pnc_core.module.bundle import read_bundle
from pnc_core.module.composed import Composed, attach, without_modules
from pnc_core.module.composition import Composition, module_digest, read_composition

MAX_CHOICES = 64
"""Most sets of modules whose programs a snapshot caches."""
PROBES = 6
"""Number of noise images. A module's answers to them must not all be equal."""
Run = Callable[[Program, Tensor], Tensor]
"""From a program and uint8 pixels to logits."""


@dataclass(eq=False)
class Use:
    """Running and answered requests of a snapshot, and the time of its replacement."""

    requests: int = 0
    answered: int = 0
    replaced: float | None = None

    def replace(self) -> None:
        """Record that a newer snapshot is served from now on."""
        self.replaced = time.monotonic()
        if not self.requests:
            metrics.DRAIN_SECONDS.observe(0)


@dataclass(frozen=True, eq=False)
class Second:
    """The second set of modules of a snapshot: its canary."""

    wanted: DesiredCanary
    program: Program
    """Program of the target with these modules."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A target with modules attached, at one generation of a deployment."""

    deployment: str
    generation: int
    version: str
    """Version of the target as `name@number`."""
    fingerprint: str
    """Fingerprint of the target's tensors, computed when the snapshot was made."""
    spec: NetworkSpec
    program: Program
    """Program of the target with all modules."""
    modules: tuple[DesiredModule, ...]
    """Attached modules in their order."""
    second: Second | None = None
    """The canary; None: there is none."""
    use: Use = field(default_factory=Use)
    _choices: dict[tuple[str, ...] | None, "Choice"] = field(default_factory=dict)

    @property
    def network(self) -> Composed:
        """The composed network in the library's form."""
        return self.program.network

    @cached_property
    def canary(self) -> "Choice | None":
        """The target with the modules of the canary; None: there is no canary."""
        if self.second is None:
            return None
        return Choice(self, self.second.program, self.second.wanted.modules, "canary")

    def has_together(self, modules: Collection[DesiredModule]) -> bool:
        """Whether one of the two sets contains all of these modules."""
        sets = (self.modules, () if self.second is None else self.second.wanted.modules)
        return any(set(modules) <= set(one) for one in sets)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Count a request for the duration of a block. Call it on the event loop only."""
        self.use.requests += 1
        try:
            yield
        finally:
            self.use.requests -= 1
            self.use.answered += 1
            if self.use.replaced is not None and not self.use.requests:
                metrics.DRAIN_SECONDS.observe(time.monotonic() - self.use.replaced)

    def chosen(self, ids: tuple[str, ...] | None) -> "Choice":
        """The target with some of the modules, by their ids; None: all modules.

        Raises:
            NotFound: a module is not attached.
        """
        found = self._choices.get(ids)
        if found is None:
            if len(self._choices) >= MAX_CHOICES:
                self._choices.clear()
            found = self._choices[ids] = self._choose(ids)
        return found

    def _choose(self, ids: tuple[str, ...] | None) -> "Choice":
        here = {module.id: i for i, module in enumerate(self.modules)}
        unknown = [i for i in ids or () if i not in here]
        if unknown:
            raise NotFound(f"{self.deployment}: expected modules among {list(here)}, got {unknown}; attach them first")
        places = sorted(here.values() if ids is None else {here[i] for i in ids})
        if len(places) == len(self.modules):
            return Choice(self, self.program, self.modules)
        branches = [self.program.branches[i] for i in places]
        return Choice(self, put_together(self.program.trunk, branches), tuple(self.modules[i] for i in places))


@dataclass(frozen=True, eq=False)
class Choice:
    """A snapshot and those of its modules that answer a request."""

    snapshot: Snapshot
    program: Program
    modules: tuple[DesiredModule, ...]
    module_set: str = "main"
    """`main`: the attached modules, or some of them. `canary`: those of the canary."""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.program.network.classes

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Generation, target and modules of an answer, as strings."""
        return {
            "generation": str(self.snapshot.generation),
            "target": self.snapshot.version,
            "target_fingerprint": self.snapshot.fingerprint,
            "module_set": self.module_set,
            "modules": ",".join(module.id for module in self.modules),
            "module_digests": ",".join(module.digest for module in self.modules),
            "composition": self.program.composition or "",
            "classes": orjson.dumps(self.classes).decode(),
        }

    @cached_property
    def provenance_json(self) -> orjson.Fragment:
        """`provenance` as JSON, serialized once for all answers."""
        return orjson.Fragment(orjson.dumps(self.provenance))


def load_trunk(zoo: Zoo, wanted: DesiredDeployment, mode: Mode) -> Trunk:
    """Load a deployment's target in eval mode and prepare it.

    Args:
        zoo: Holds the weights.
        wanted: The deployment.
        mode: How the target is prepared.

    Raises:
        MismatchError: the stored weights have another fingerprint than registered.
        PncError: the weights cannot be loaded.
    """
    with verified_file(zoo.store, wanted.weights_key, wanted.weights_digest) as path:
        network = load_network(wanted.spec, path).requires_grad_(False)
    _lay_out(network, mode)
    checked_fingerprint(wanted, network)
    file = _stored(zoo, wanted.weights_key, wanted.weights_digest)
    return Trunk(without_modules(network, wanted.spec), mode, wanted.macs, file)


def _lay_out(network: torch.nn.Module, mode: Mode) -> None:
    """Move weights to the device, for speed in the layout channels last. Their values stay the same."""
    layout = torch.contiguous_format if mode.exact else torch.channels_last
    network.to(device=mode.device, memory_format=layout)  # type: ignore[call-overload]


def checked_fingerprint(wanted: DesiredDeployment, target: torch.nn.Module) -> str:
    """Compute the target's fingerprint and compare it with the registered one.

    Raises:
        MismatchError: the fingerprints differ.
    """
    got = fingerprint(target)
    if got != wanted.fingerprint:
        raise MismatchError(f"{wanted.version}: expected weights with fingerprint {wanted.fingerprint}, got {got}")
    return got


def load_branch(zoo: Zoo, wanted: DesiredDeployment, trunk: Trunk, module: DesiredModule) -> Branch:
    """Load a module and prepare it for its target's trunk.

    Raises:
        ZooError: the object is missing, or its bytes have changed.
        PncError: the bundle is damaged or was made for another target. The target is unchanged.
    """
    with verified_file(zoo.store, module.key, module.digest) as path:
        bundle = read_bundle(path)
    alone = attach(trunk.target, bundle, spec=wanted.spec)
    _lay_out(alone.clones, trunk.mode)
    return Branch(alone.attached[0], trunk, _stored(zoo, module.key, module.digest), module_digest(bundle))


def load_composition(zoo: Zoo, wanted: DesiredComposition) -> tuple[str, Composition]:
    """Id and content of a composition.

    Raises:
        ZooError: the object is missing, or its bytes have changed.
        CompositionError: the file is not a composition.
    """
    with verified_file(zoo.store, wanted.key, wanted.digest) as path:
        return wanted.id, read_composition(path)


def _stored(zoo: Zoo, key: str, digest: str) -> StoredFile:
    return StoredFile(digest, partial(verified_file, zoo.store, key, digest))


def compose(wanted: DesiredDeployment, trunk: Trunk, program: Program, second: Second | None = None) -> Snapshot:
    """Make a snapshot of a trunk's program, and of the canary's program."""
    return Snapshot(
        deployment=wanted.name,
        generation=wanted.generation,
        version=wanted.version,
        fingerprint=checked_fingerprint(wanted, trunk.target.target),
        spec=wanted.spec,
        program=program,
        modules=wanted.modules,
        second=second,
    )


def try_out(name: str, program: Program, run: Run, sizes: tuple[int, ...]) -> None:
    """Warm a program up and test its answers.

    Args:
        name: Name of the new deployment or module, for errors.
        program: The program, which is not served yet.
        run: Runs the program.
        sizes: Expected batch sizes; empty: trunk and branches have been warmed up before.

    Raises:
        NetworkError: a logit is not finite, or a module gives the same logits for all images.
    """
    size = program.network.traced.spec.input_size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (max(PROBES, *sizes, 0), *size), generator=generator, dtype=torch.uint8)
    noise[0], noise[1] = 0, 255
    for batch in sizes:
        run(program, noise[:batch])
    logits = run(program, noise[:PROBES])
    if not bool(torch.isfinite(logits).all()):
        raise NetworkError(f"{name}: expected finite logits for blank images and noise, got inf or nan")
    names = program.network.classes
    for branch in program.branches:
        manifest = branch.module.manifest
        own = logits[:, [names.index(name) for name in manifest.classes]]
        if not manifest.head.strict and bool((own == own[:1]).all()):
            raise NetworkError(f"{name}: expected logits that depend on the image, got {own[0].tolist()} for all")
