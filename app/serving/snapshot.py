"""An immutable thing to serve: one target with its modules, and what it is called.

A snapshot refers to its target and registers nothing on it, so that leaving a
snapshot is exact: the next one starts from the very same target.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.serving import metrics
from app.zoo.deployments import DesiredDeployment, DesiredModule
from app.zoo.errors import NotFound
from app.zoo.store import verified_file
from app.zoo.zoo import Zoo
from pnc_core.bundle import read_bundle
from pnc_core.composed import Composed, attach, without_modules
from pnc_core.config import NetworkSpec
from pnc_core.data import preprocess
from pnc_core.errors import MismatchError, NetworkError
from pnc_core.identity import fingerprint
from pnc_core.networks import load_network

MAX_SUBSETS = 64
"""Sets of modules that requests have asked for and that stay built."""
PROBES = 6
"""Images of noise that a module's answers must differ on."""
Run = Callable[[Composed, Tensor], Tensor]
"""(network, preprocessed images) -> logits."""


@dataclass(eq=False)
class Use:
    """How many requests a snapshot is answering, and since when nobody new comes."""

    requests: int = 0
    answered: int = 0
    replaced: float | None = None

    def replace(self) -> None:
        """A newer snapshot is served from now on."""
        self.replaced = time.monotonic()
        if not self.requests:
            metrics.DRAIN_SECONDS.observe(0)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A target with modules attached, at one generation of a deployment."""

    deployment: str
    generation: int
    version: str
    """For people: `name@number`."""
    fingerprint: str
    """Of the live target's tensors, taken anew when the snapshot was made."""
    spec: NetworkSpec
    network: Composed
    """The target with all modules."""
    modules: tuple[DesiredModule, ...]
    """As attached, in order."""
    use: Use = field(default_factory=Use)
    _subsets: dict[tuple[str, ...], Composed] = field(default_factory=dict)

    @contextmanager
    def used(self) -> Iterator[None]:
        """One request runs on this snapshot; counted on the event loop alone."""
        self.use.requests += 1
        try:
            yield
        finally:
            self.use.requests -= 1
            self.use.answered += 1
            if self.use.replaced is not None and not self.use.requests:
                metrics.DRAIN_SECONDS.observe(time.monotonic() - self.use.replaced)

    def chosen(self, ids: tuple[str, ...] | None) -> tuple[Composed, tuple[DesiredModule, ...]]:
        """The target with only some of the modules: those a request names; None: all.

        Raises:
            NotFound: a module is not attached here.
        """
        if ids is None:
            return self.network, self.modules
        here = {module.id: i for i, module in enumerate(self.modules)}
        unknown = [i for i in ids if i not in here]
        if unknown:
            raise NotFound(f"{self.deployment}: expected modules among {list(here)}, got {unknown}; attach them first")
        places = tuple(sorted({here[i] for i in ids}))
        modules = tuple(self.modules[i] for i in places)
        if len(places) == len(self.modules):
            return self.network, modules
        key = tuple(module.id for module in modules)
        if key not in self._subsets:
            if len(self._subsets) >= MAX_SUBSETS:
                self._subsets.clear()
            attached = self.network.attached
            self._subsets[key] = Composed(self.network.target, self.network.traced, [attached[i] for i in places])
        return self._subsets[key], modules


def load_target(zoo: Zoo, wanted: DesiredDeployment, *, channels_last: bool) -> Composed:
    """A deployment's target in eval mode, traced, with nothing attached.

    Args:
        zoo: Where the weights are.
        wanted: Which they are.
        channels_last: Lay the weights out for speed; they are the same numbers.

    Raises:
        MismatchError: the stored weights are not those that were registered.
        PncError: the weights cannot be loaded.
    """
    with verified_file(zoo.store, wanted.weights_key, wanted.weights_digest) as path:
        network = load_network(wanted.spec, path).requires_grad_(False)
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checked_fingerprint(wanted, network)
    return without_modules(network, wanted.spec)


def checked_fingerprint(wanted: DesiredDeployment, target: torch.nn.Module) -> str:
    """The target's fingerprint, which must be the registered one.

    Raises:
        MismatchError: it is another.
    """
    got = fingerprint(target)
    if got != wanted.fingerprint:
        raise MismatchError(f"{wanted.version}: expected weights with fingerprint {wanted.fingerprint}, got {got}")
    return got


def load_alone(zoo: Zoo, wanted: DesiredDeployment, target: Composed, module: DesiredModule) -> Composed:
    """A target with one module attached: where modules are taken from when they are put together.

    Raises:
        ZooError: the object is gone, or its bytes have changed.
        PncError: the bundle is damaged or made for another target; the target is as it was.
    """
    with verified_file(zoo.store, module.key, module.digest) as path:
        return attach(target, read_bundle(path), spec=wanted.spec)


def compose(wanted: DesiredDeployment, target: Composed, alone: list[Composed]) -> Snapshot:
    """A snapshot of a target with modules that were each attached to it before."""
    modules = [one.attached[0] for one in alone]
    return Snapshot(
        deployment=wanted.name,
        generation=wanted.generation,
        version=wanted.version,
        fingerprint=checked_fingerprint(wanted, target.target),
        spec=wanted.spec,
        network=Composed(target.target, target.traced, modules) if modules else target,
        modules=wanted.modules,
    )


def try_out(snapshot: Snapshot, run: Run, shapes: tuple[int, ...]) -> None:
    """Warm a network up, and refuse one whose answers are no numbers or whose modules say nothing.

    Args:
        snapshot: Not served yet.
        run: Runs it.
        shapes: Sizes of batches that will come.

    Raises:
        NetworkError: a logit is not finite, or a module answers the same whatever it sees.
    """
    generator = torch.Generator().manual_seed(0)
    size = snapshot.spec.input_size
    noise = torch.randint(0, 256, (max(PROBES, *shapes), *size), generator=generator, dtype=torch.uint8)
    noise[0], noise[1] = 0, 255
    images = preprocess(noise, snapshot.spec)
    for shape in shapes:
        run(snapshot.network, images[:shape])
    logits = run(snapshot.network, images[:PROBES])
    if not bool(torch.isfinite(logits).all()):
        raise NetworkError(f"{snapshot.deployment}: expected finite logits of blank images and noise, got inf or nan")
    names = snapshot.network.classes
    for module, attached in zip(snapshot.modules, snapshot.network.attached, strict=True):
        own = logits[:, [names.index(name) for name in attached.manifest.classes]]
        if not attached.manifest.head.strict and bool((own == own[:1]).all()):
            raise NetworkError(f"{module.id}: expected logits that depend on the image, got {own[0].tolist()} for all")
