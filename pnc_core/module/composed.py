"""Attach modules to a target and detach them.

A composed network only refers to its target. It changes no weight, buffer, hook or mode of the target, so the target is
exactly the same after detaching. Source: the paper's abstract (no weight of the target changes).
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
from pnc_core.graph.positions import PositionInfo, Traced, trace
from pnc_core.identity import fingerprint
from pnc_core.images import Views, preprocess
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.composition import Composition, module_digest, read_composition
from pnc_core.module.entry import entered, phi_of, read_of, takes_image
from pnc_core.module.head import Head, against, last_taps, pool_taps
from pnc_core.module.module import ClonedModule, load_module

Given = Bundle | Path | str
"""A bundle, or the path of its file."""


@dataclass(frozen=True)
class _Referred:
    """Objects that a composed network uses but does not own."""

    target: nn.Module
    traced: Traced
    attached: tuple[ClonedModule, ...]
    reads: tuple[str, ...]
    common_taps: tuple[PositionInfo, ...]


class Composed(nn.Module):
    """A target with modules attached: images -> logits over old and cloned classes.

    The target is not a submodule: `state_dict`, `train` and `to` of this network
    do not affect it.
    """

    def __init__(
        self,
        target: nn.Module,
        traced: Traced,
        modules: Sequence[ClonedModule],
        balance: Sequence[tuple[float, float]] | None = None,
        common: Head | None = None,
    ) -> None:
        """Compose a target and modules.

        Args:
            target: The target.
            traced: The traced target.
            modules: The modules.
            balance: Scale and offset of each module's logits (`pnc_core.method.balance`); by default 1 and 0.
            common: A `joint` head for all modules. It reads all taps of the target or the last few, and replaces the
                modules' own corrections.
        """
        super().__init__()
        self.balance = tuple(balance or ((1.0, 0.0) for _ in modules))
        self.clones, self.common = nn.ModuleList(modules), common
        common_taps = () if common is None else last_taps(traced, common.weight.shape[1])
        self._axes = {p.name: p.axis for p in traced.positions}
        names = (n for m in modules for n in (read_of(m.manifest), *_taps(m)))
        reads = tuple(dict.fromkeys((*names, *(p.name for p in common_taps))))
        # Bypass nn.Module.__setattr__, which would register the target as a submodule.
        self.__dict__["_referred"] = _Referred(target, traced, tuple(modules), reads, tuple(common_taps))
        self.__dict__["_reader"] = None
        self.eval()

    def train(self, mode: bool = True) -> "Composed":
        """Stay in eval mode: in train mode a module's norms would change their copied statistics."""
        del mode
        return super().train(False)

    @property
    def _parts(self) -> "_Referred":
        parts: _Referred = self.__dict__["_referred"]
        return parts

    @property
    def _read(self) -> Reader:
        """Reader of the target, made at first use. A caller that reads the target for several networks needs none."""
        if self.__dict__["_reader"] is None:
            self.__dict__["_reader"] = Reader(self.traced, self.reads)
        reader: Reader = self.__dict__["_reader"]
        return reader

    @property
    def target(self) -> nn.Module:
        """The same object that was passed to `attach`."""
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
        """The part of the target that this network runs."""
        return self._read.part

    @property
    def reads(self) -> tuple[str, ...]:
        """Positions of the target whose activations the modules and the common head read."""
        return self._parts.reads

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all logits: the target's classes, then each module's. A class of several modules appears once."""
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
            NetworkError: the target is in train mode, where its logits would differ.
        """
        if any(module.training for module in self.target.modules()):
            raise NetworkError("target: expected eval mode, got train mode; call .eval() on it")
        old, activations = self._read(x)
        return self.answer(old, {**activations, **(entered or {})})

    def answer(self, old: Tensor, activations: dict[str, Tensor]) -> Tensor:
        """Logits (N, old + cloned) from the target's logits and activations.

        Several composed networks on one target can share one pass of the target's `Reader`.

        Args:
            old: The target's logits (N, old).
            activations: The target's activations by position, at least those of `reads`, and optionally the images
                from `entered`.
        """
        answers = self.answers(old, activations)
        seen = None if self.common is None else self.pooled(activations)
        return self.finish(old, answers, seen)

    def finish(self, old: Tensor, answers: Sequence[tuple[Tensor | None, Tensor]], seen: Tensor | None) -> Tensor:
        """Logits (N, old + cloned) from the target's logits and every module's logits.

        Args:
            old: The target's logits (N, old).
            answers: As `answers` returns them.
            seen: The features that `pooled` returns, (N, D); None: there is no common head.
        """
        common: Head | None = self.common
        if common is None:
            return self.join(old, answers)
        assert seen is not None
        joined = self.join(old, [(None, own) for _, own in answers])
        sides = joined.split((old.shape[1], joined.shape[1] - old.shape[1]), dim=1)
        return torch.cat(common(*sides, seen), dim=1)

    @property
    def common_taps(self) -> tuple[PositionInfo, ...]:
        """Taps of the target that the common head reads; empty without a common head."""
        return self._parts.common_taps

    def pooled(self, activations: dict[str, Tensor]) -> Tensor:
        """Pooled taps of the target, (N, D), for the common head."""
        taps = self.common_taps
        return pool_taps([activations[p.name] for p in taps], [p.axis for p in taps], 1)

    def answers(self, old: Tensor, activations: dict[str, Tensor]) -> list[tuple[Tensor | None, Tensor]]:
        """Every module's own logits, before balance and joining; arguments as for `answer`.

        Returns:
            For each module, in the order of attaching: correction (N, old) or None, and own logits (N, K).
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
        """Join the target's logits and every module's logits to (N, old + cloned).

        Args:
            old: The target's logits (N, old).
            answers: As `answers` returns them.
        """
        corrections: list[Tensor] = []
        columns: dict[str, list[Tensor]] = {}
        # Floating-point sums depend on their order. Sorting makes the logits independent of the order of attaching.
        entries = zip(self.attached, self.balance, answers, strict=True)
        for module, (scale, offset), (correction, own) in sorted(entries, key=_identity):
            corrections += [correction] if correction is not None else []
            own = own if (scale, offset) == (1.0, 0.0) else own * scale + offset
            own = own + against(old) if module.manifest.head.odds else own
            for name, column in zip(module.manifest.classes, own.unbind(1), strict=True):
                columns.setdefault(name, []).append(column)
        new = [_mean(columns[name]) for name in self.classes[old.shape[1] :]]
        corrected = old + sum(corrections[1:], corrections[0]) if corrections else old
        return torch.cat([corrected, torch.stack(new, dim=1)], dim=1) if new else corrected


def _taps(module: ClonedModule) -> tuple[str, ...]:
    """Positions of the target that a module's head reads."""
    head: Head = module.head
    return module.manifest.head.target_taps if head.needs_taps else ()


def _identity(
    entry: tuple[ClonedModule, tuple[float, float], tuple[Tensor | None, Tensor]],
) -> tuple[tuple[str, ...], str]:
    manifest = entry[0].manifest
    return manifest.classes, manifest.source_fingerprint


def _mean(columns: list[Tensor]) -> Tensor:
    """Logits (N,) of one class from M modules: log((1 / M) sum_m exp(z_m))."""
    return columns[0] if len(columns) == 1 else torch.stack(columns).logsumexp(0) - math.log(len(columns))


def attach(
    target: nn.Module,
    bundle: Given | Sequence[Given],
    source: nn.Module | Sequence[nn.Module | None] | None = None,
    *,
    spec: NetworkSpec | None = None,
    composition: Composition | Path | str | None = None,
) -> Composed:
    """Attach modules to a target, or further modules to a composed network.

    Several modules from different sources may have the same class: its logit is log((1 / M) sum_m exp(z_m)).

    Args:
        target: The network the bundles were made for, in eval mode, or a `Composed` of it.
        bundle: A bundle, the path of its file, or several of these.
        source: The source network; with several bundles one for each, or None. Required for a thin bundle, and for a
            full bundle of an unknown architecture.
        spec: The target's own spec. If given, the manifest's spec must be equal. Give it for untrusted bundles: the
            fingerprint covers weights only.
        composition: Numbers for exactly these modules, or the path of its file; `target` must then be without modules.
            None: every module has scale 1 and offset 0.

    Returns:
        A new composed network on the target's device; `target` is not changed, even on errors. Attaching or detaching
        a module drops the composition.

    Raises:
        BundleError: the file is not a well-formed bundle.
        CompositionError: the file is not a well-formed composition.
        MismatchError: a bundle is for another target or source, the target or a module from the same source already has
            one of the classes, or the composition is for another target or other modules.
        NetworkError: the target is in train mode, or the source's architecture is unknown and the source was not given.
        PositionError: the manifest names an unknown position.
    """
    given = [bundle] if isinstance(bundle, Bundle | Path | str) else list(bundle)
    sources = [source] * len(given) if source is None or isinstance(source, nn.Module) else list(source)
    if not given or len(sources) != len(given):
        raise MismatchError(f"bundles: expected at least one, and a source or None for each, got {len(given)}")
    loaded = [one if isinstance(one, Bundle) else read_bundle(one) for one in given]
    made = target
    for one, network in zip(loaded, sources, strict=True):
        made = _attach_one(made, one, network, spec)
    assert isinstance(made, Composed)
    if composition is None:
        return made
    numbers = composition if isinstance(composition, Composition) else read_composition(composition)
    return with_composition(made, [module_digest(one) for one in loaded], numbers)


def with_composition(composed: Composed, digests: Sequence[str], composition: Composition) -> Composed:
    """The same modules with the numbers of a composition.

    Args:
        composed: Target with modules; not changed.
        digests: Digests of the thin bundles of its modules, in the order of attaching.
        composition: A composition for exactly this target and these modules.

    Raises:
        MismatchError: the composition is for another target or other modules.
    """
    manifest, spec = composition.manifest, composed.traced.spec
    got = fingerprint(composed.target)
    if (got, spec) != (manifest.target_fingerprint, manifest.target):
        raise TargetMismatch(
            f"composition: made for the target {manifest.target_fingerprint}, got the target {got}, or one with "
            "another specification; compose for this target"
        )
    if sorted(digests) != list(composition.digests) or len(digests) != len(composed.attached):
        raise MismatchError(
            f"composition: expected exactly the modules {[*composition.digests]}, got {sorted(digests)}; attach all of "
            "them, or compose this set"
        )
    strict = [module.manifest.classes for module in composed.attached if module.manifest.head.strict]
    if strict and manifest.head != "affine":
        raise MismatchError(f"composition: expected no common head beside modules of strict locality, got {strict}")
    balance = [composition.balance_of(digest) for digest in digests]
    common = composition.common_head(composed.classes)
    return Composed(composed.target, composed.traced, composed.attached, balance, common).to(composed.traced.device)


def _attach_one(target: nn.Module, loaded: Bundle, source: nn.Module | None, spec: NetworkSpec | None) -> Composed:
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
    """A composed network without modules: it is traced already, and gives the target's logits.

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
    """Detach the modules that have exactly these classes, from any source (None: all modules).

    Returns:
        A composed network of the remaining modules; the target itself if none remains.

    Raises:
        MismatchError: no module has exactly these classes.
    """
    left = [m for m in composed.attached if classes is not None and set(m.manifest.classes) != set(classes)]
    if classes is not None and len(left) == len(composed.attached):
        raise MismatchError(
            f"detach: expected one of {[m.manifest.classes for m in composed.attached]}, got {list(classes)}"
        )
    return Composed(composed.target, composed.traced, left) if left else composed.target
