"""Plug modules into a target and pull them out again.

A composed network *refers* to its target and registers nothing on it: no
weight, buffer, hook or mode of the target changes, so detaching is exact by
construction. Source: the paper's abstract (no weight of the target changes).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.errors import MismatchError, NetworkError, TargetMismatch
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import Traced, trace
from pnc_core.identity import fingerprint
from pnc_core.images import Views, preprocess
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.entry import entered, phi_of, read_of, takes_image
from pnc_core.module.head import Head, pool_taps
from pnc_core.module.module import ClonedModule, load_module


@dataclass(frozen=True)
class _Referred:
    """What a composed network refers to without owning it."""

    target: nn.Module
    traced: Traced
    attached: tuple[ClonedModule, ...]
    reads: tuple[str, ...]


class Composed(nn.Module):
    """A target with modules attached: images -> logits over old and cloned classes.

    The target is not a submodule: `state_dict`, `train` and `to` of this network
    leave it alone.
    """

    def __init__(
        self,
        target: nn.Module,
        traced: Traced,
        modules: Sequence[ClonedModule],
        balance: Sequence[tuple[float, float]] | None = None,
        common: Head | None = None,
    ) -> None:
        """`balance`: scale and offset of each module's logits, for modules that have to live together; `common`:
        a `joint` head for all of them that reads every tap of the target, in place of their own corrections.
        """
        super().__init__()
        self.balance = tuple(balance or ((1.0, 0.0) for _ in modules))
        self.clones, self.common = nn.ModuleList(modules), common
        self._axes = {p.name: p.axis for p in traced.positions}
        names = (n for m in modules for n in (read_of(m.manifest), *_taps(m)))
        reads = tuple(dict.fromkeys((*names, *(p.name for p in traced.taps if common is not None))))
        # Past nn.Module's registration: what is not registered is not touched.
        self.__dict__["_referred"] = _Referred(target, traced, tuple(modules), reads)
        self.__dict__["_reader"] = None
        self.eval()

    def train(self, mode: bool = True) -> "Composed":
        """Stay in eval mode, whatever is asked: a module's norms must not learn, its copies are the source's."""
        del mode
        return super().train(False)

    @property
    def _parts(self) -> "_Referred":
        parts: _Referred = self.__dict__["_referred"]
        return parts

    @property
    def _read(self) -> Reader:
        """Made when it is first wanted: who reads the target for several networks at once needs none."""
        if self.__dict__["_reader"] is None:
            self.__dict__["_reader"] = Reader(self.traced, self.reads)
        reader: Reader = self.__dict__["_reader"]
        return reader

    @property
    def target(self) -> nn.Module:
        """The very object that was given to `attach`."""
        return self._parts.target

    @property
    def traced(self) -> Traced:
        """The traced target."""
        return self._parts.traced

    @property
    def attached(self) -> tuple[ClonedModule, ...]:
        """The modules, in the order of attaching."""
        return self._parts.attached

    @property
    def trunk(self) -> nn.Module | None:
        """The target's own layers as this network runs them."""
        return self._read.part

    @property
    def reads(self) -> tuple[str, ...]:
        """Positions of the target whose activations the modules, and a head that all share, need."""
        return self._parts.reads

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all logits: the target's classes, then each module's, a class of several modules once."""
        new = (c for module in self.attached for c in module.manifest.classes)
        return tuple(dict.fromkeys((*self.traced.spec.classes, *new)))

    @property
    def sees(self) -> list[NetworkSpec]:
        """Networks that an image is preprocessed for: the target, and the sources of modules that take the image."""
        manifests = (module.manifest for module in self.attached)
        return [self.traced.spec, *(manifest.source for manifest in manifests if takes_image(manifest))]

    def entered(self, images: Tensor | Views) -> dict[str, Tensor]:
        """uint8 images (N, C, H, W) as modules take them that take the image itself; empty without such modules."""
        return entered((module.manifest for module in self.attached), images, self.traced.device)

    def logits(self, images: Tensor | Views) -> Tensor:
        """uint8 images (N, C, H, W) -> logits (N, old + cloned). Target and sources see the images preprocessed
        as each of them wants it.
        """
        x = preprocess(images, self.traced.spec, self.traced.device)
        return self(x, self.entered(images))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, entered: Mapping[str, Tensor] | None = None) -> Tensor:
        """Preprocessed images (N, C, H, W) -> logits (N, old + cloned).

        Args:
            x: As the target takes them.
            entered: The same images as `entered` gives them. Without them a module that takes the image itself takes
                `x`, brought back to pixels and preprocessed for its source.

        Raises:
            NetworkError: the target is in train mode, in which its answers would differ.
        """
        if any(module.training for module in self.target.modules()):
            raise NetworkError("target: expected eval mode, got train mode; call .eval() on it")
        old, activations = self._read(x)
        return self.answer(old, {**activations, **(entered or {})})

    def answer(self, old: Tensor, activations: dict[str, Tensor]) -> Tensor:
        """The same from what a `Reader` of the target has seen: who serves several networks on one
        target reads it once for all.

        Args:
            old: The target's logits (N, old).
            activations: By position, at least those of `reads`; and the images from `entered`, if they are known.
        """
        answers = self.answers(old, activations)
        common: Head | None = self.common
        if common is None:
            return self.join(old, answers)
        joined = self.join(old, [(None, own) for _, own in answers])
        sides = joined.split((old.shape[1], joined.shape[1] - old.shape[1]), dim=1)
        return torch.cat(common(*sides, self.pooled(activations)), dim=1)

    def pooled(self, activations: dict[str, Tensor]) -> Tensor:
        """Means and spreads of all the target's taps, (N, D): what a head that all modules share reads."""
        taps = self.traced.taps
        return pool_taps([activations[p.name] for p in taps], [p.axis for p in taps], 1)

    def answers(self, old: Tensor, activations: dict[str, Tensor]) -> list[tuple[Tensor | None, Tensor]]:
        """What every module says before it is scaled and joined with the others; arguments as for `answer`.

        Returns:
            Of each module in the order of attaching: correction (N, old) or None, and own logits (N, K).
        """
        pooled: dict[tuple[tuple[str, ...], int], Tensor] = {((), 0): old[:, :0]}
        answers = []
        for module in self.attached:
            taps = _taps(module)
            key = taps, module.manifest.head.grid if taps else 0
            if key not in pooled:
                pooled[key] = pool_taps([activations[n] for n in taps], [self._axes[n] for n in taps], key[1])
            answers.append(module(phi_of(module.manifest, activations), pooled[key]))
        return answers

    def join(self, old: Tensor, answers: Sequence[tuple[Tensor | None, Tensor]]) -> Tensor:
        """All logits (N, old + cloned) from the target's and every module's.

        Args:
            old: The target's logits (N, old).
            answers: Of each module in the order of attaching: correction (N, old) or None, and own logits (N, K).
        """
        corrections: list[Tensor] = []
        columns: dict[str, list[Tensor]] = {}
        # Sums of floats depend on their order: one order, whichever module came first.
        entries = zip(self.attached, self.balance, answers, strict=True)
        for module, (scale, offset), (correction, own) in sorted(entries, key=_identity):
            corrections += [correction] if correction is not None else []
            own = own if (scale, offset) == (1.0, 0.0) else own * scale + offset
            for name, column in zip(module.manifest.classes, own.unbind(1), strict=True):
                columns.setdefault(name, []).append(column)
        new = [_mean(columns[name]) for name in self.classes[old.shape[1] :]]
        corrected = old + sum(corrections[1:], corrections[0]) if corrections else old
        return torch.cat([corrected, torch.stack(new, dim=1)], dim=1) if new else corrected


def _taps(module: ClonedModule) -> tuple[str, ...]:
    """Positions of the target whose pooled activations a module's head looks at."""
    head: Head = module.head
    return module.manifest.head.target_taps if head.needs_taps else ()


def _identity(
    entry: tuple[ClonedModule, tuple[float, float], tuple[Tensor | None, Tensor]],
) -> tuple[tuple[str, ...], str]:
    manifest = entry[0].manifest
    return manifest.classes, manifest.source_fingerprint


def _mean(columns: list[Tensor]) -> Tensor:
    """Logits (N,) of one class as several modules see it: the mean of their odds, log-mean-exp."""
    return columns[0] if len(columns) == 1 else torch.stack(columns).logsumexp(0) - math.log(len(columns))


def attach(
    target: nn.Module, bundle: Bundle | Path | str, source: nn.Module | None = None, *, spec: NetworkSpec | None = None
) -> Composed:
    """Attach a module to a target, or to a composed network as one more.

    Several modules may carry the same class, each from a source of its own: their odds are averaged.

    Args:
        target: The network the bundle was made for, in eval mode, or a `Composed` of it.
        bundle: A bundle or the path of its file.
        source: The source network, for a thin bundle, or for a full one of an architecture that is not known here.
        spec: The target's own spec. The fingerprint covers weights only; who takes bundles
            from strangers gives the spec, so that the manifest's must be the same.

    Returns:
        A new composed network on the target's device; `target` is left as it was, whatever happens.

    Raises:
        BundleError: the file is not a well-formed bundle.
        MismatchError: the bundle is for another target or source, or a class is there already,
            in the target or from the same source.
        NetworkError: the target is in train mode, or the source's architecture is unknown and the source was not given.
        PositionError: the manifest names a position that is not there.
    """
    loaded = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    base = target.target if isinstance(target, Composed) else target
    attached = target.attached if isinstance(target, Composed) else ()
    _check_target(base, loaded, spec)
    traced = target.traced if isinstance(target, Composed) else trace(base, loaded.manifest.target)
    module = load_module(loaded, traced, source).to(traced.device)
    same = [m.manifest for m in attached if m.manifest.source_fingerprint == loaded.manifest.source_fingerprint]
    present = {*traced.spec.classes, *(c for manifest in same for c in manifest.classes)}
    twice = sorted(present & set(loaded.manifest.classes))
    if twice:
        raise MismatchError(f"bundle: expected classes that are not there yet, got {twice}")
    return Composed(base, traced, [*attached, module])


def without_modules(target: nn.Module, spec: NetworkSpec) -> Composed:
    """A target ready to have modules attached: it answers as the target does, and is traced already.

    Raises:
        NetworkError: the target is in train mode or cannot be traced.
    """
    return Composed(target, trace(target, spec), [])


def _check_target(target: nn.Module, bundle: Bundle, spec: NetworkSpec | None) -> None:
    manifest = bundle.manifest
    got = fingerprint(target)
    if got != manifest.target_fingerprint:
        raise TargetMismatch(
            f"bundle: made for the target {manifest.target_fingerprint}, got the target {got}; "
            "attach it to the network it was cloned for"
        )
    if spec is not None and spec != manifest.target:
        raise TargetMismatch(f"bundle: expected a manifest for the target {spec}, got one for {manifest.target}")


def detach(composed: Composed, classes: Sequence[str] | None = None) -> nn.Module:
    """Pull out what carries exactly `classes`, from whichever source (None: all modules).

    Returns:
        A composed network of what is left, or the target itself, untouched.

    Raises:
        MismatchError: no module carries exactly these classes.
    """
    left = [m for m in composed.attached if classes is not None and set(m.manifest.classes) != set(classes)]
    if classes is not None and len(left) == len(composed.attached):
        raise MismatchError(
            f"detach: expected one of {[m.manifest.classes for m in composed.attached]}, got {list(classes)}"
        )
    return Composed(composed.target, composed.traced, left) if left else composed.target
