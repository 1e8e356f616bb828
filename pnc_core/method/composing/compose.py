"""Compose: fit a composition of several modules on one target, with evidence.

Every module was calibrated against the target alone. A composition holds the numbers that the modules need beside each
other: scale and offset of each module's logits, and with the head `joint` or `ridge` a linear correction of all logits
from the target's pooled taps (`pnc_core.method.balance`, `pnc_core.method.composing.ridge`):

    affine:  (z_0, s_1 z_1 + o_1, s_2 z_2 + o_2, ...)
    joint:   the same + W f + b
    ridge:   the same + g (W z),    W from sums of the images, g from scores of images that W has not seen

Own choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.errors import Cancelled, ConfigError, DataError, MismatchError
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.balance import Rows, rows_of
from pnc_core.method.composing.evidence import Judged, refuse, verdict_of
from pnc_core.method.composing.numbers import Numbers, fit_numbers
from pnc_core.method.composing.ridge import MOST_FEATURES, Window, check_private, packed, window_of
from pnc_core.method.heads.folds import folds_of
from pnc_core.method.job import Progress, Report
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.composed import Composed, attach
from pnc_core.module.composition import (
    FORMAT,
    ComposedModule,
    Composition,
    CompositionManifest,
    HeadKind,
    Origin,
    RidgeSpec,
    module_digest,
)
from pnc_core.module.verdict import Verdict

READ, FITTED = 0.5, 0.6
"""Progress when all images have been read, and when the numbers are fitted."""


@dataclass(frozen=True, eq=False)
class ModuleSet:
    """Modules attached to a target without a composition, sorted by the digests of their thin bundles."""

    plain: Composed
    modules: tuple[ComposedModule, ...]
    fingerprint: str
    """Fingerprint of the target."""


def compose(
    target: tuple[nn.Module, NetworkSpec],
    bundles: Sequence[Bundle | Path | str],
    images: ImageSet,
    *,
    head: HeadKind = "affine",
    sources: Sequence[tuple[nn.Module, NetworkSpec] | None] = (),
    most_features: int = MOST_FEATURES,
    keep_anyway: bool = False,
    seed: int = 0,
    report: Report = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Composition:
    """Fit a composition of modules on one target.

    Args:
        target: The target in eval mode, and its spec; not changed.
        bundles: Bundles of the modules, or paths of their files; their order does not matter.
        images: uint8 images of every module's classes and of the target's, labelled by class name; others are ignored,
            and so are copies. Best are images that no module's job has seen.
        head: `affine` keeps the order of the logits inside every module. `joint` and `ridge` also fit a linear
            correction on the target's taps, which replaces the modules' own corrections of old logits. `ridge` can be
            extended without old images.
        sources: The source of each bundle and its spec, or None; needed for thin bundles. With all sources the
            verdict also compares with all whole networks side by side.
        most_features: Largest number of features of the ridge sums. Each later step needs more different images than
            features (`check_private`).
        keep_anyway: Make the composition although the modules without it are surely more accurate.
        seed: Seed of the folds.
        report: Called with the progress.
        cancelled: Asked before each batch and each fit.

    Returns:
        The composition with its verdict. It has sums for a ridge head if there are enough images; the manifest gives
        the reason if not.

    Raises:
        BundleError: a file is not a well-formed bundle.
        Cancelled: `cancelled` returned True.
        ConfigError: `head` is unknown.
        DataError: there are no images of a module's classes, or of the target's; or `head` is `ridge` and there are
            too few images.
        MismatchError: a bundle is for another target, two modules from one source have the same class, or `head` is not
            `affine` and a module has strict locality.
        WorseThanNone: the modules without the composition are surely more accurate, and `keep_anyway` is False.
    """
    if head not in get_args(HeadKind):
        raise ConfigError(f"head: expected one of {get_args(HeadKind)}, got {head!r}")
    together = module_set(target, bundles, sources)
    plain = together.plain
    check_head(head, plain)
    used = images.only(plain.classes).without_copies()
    _check_classes(plain, used)
    rows = read_rows(plain, used, report, cancelled)
    window, reason = _window(plain, used, most_features)
    if head == "ridge" and window is None:
        raise DataError(f"{reason}; or take the head affine")
    generator = torch.Generator().manual_seed(seed)
    folds = folds_of(used, generator)

    def fit(some: Rows, their_folds: Tensor) -> Numbers:
        _pause(cancelled)
        return fit_numbers(head, plain.join, some, window, plain.traced, their_folds)

    report(Progress("fitting", READ, f"fitting the numbers of {len(plain.attached)} modules"))
    numbers = fit(rows, folds)
    report(Progress("judging", FITTED, "comparing with the modules alone and with answers without modules"))
    judged = Judged(plain, used, rows, folds)
    given = _sources_in_order(bundles, sources)
    stored = 2 * len(plain.attached) + (0 if numbers.weight is None else numbers.weight.numel() + len(numbers.weight))
    verdict, is_worse = verdict_of(judged, fit, given, stored, generator)
    if is_worse and not keep_anyway:
        raise refuse(verdict)
    return written(together, numbers, "fitted", reason, verdict)


def module_set(
    target: tuple[nn.Module, NetworkSpec],
    bundles: Sequence[Bundle | Path | str],
    sources: Sequence[tuple[nn.Module, NetworkSpec] | None] = (),
) -> ModuleSet:
    """Attach modules in the order of the digests of their thin bundles; arguments and errors as for `compose`."""
    loaded = _loaded(bundles)
    given = [*sources] or [None] * len(loaded)
    if not loaded or len(given) != len(loaded):
        raise ConfigError(f"bundles: expected at least one, and a source or None for each, got {len(loaded)}")
    pairs = sorted(zip([module_digest(b) for b in loaded], loaded, given, strict=True), key=lambda one: one[0])
    networks = [None if source is None else source[0] for _, _, source in pairs]
    plain = attach(target[0], [bundle for _, bundle, _ in pairs], networks, spec=target[1])
    modules = tuple(
        ComposedModule(digest=d, classes=b.manifest.classes, source_fingerprint=b.manifest.source_fingerprint)
        for d, b, _ in pairs
    )
    return ModuleSet(plain, modules, fingerprint(target[0]))


def check_head(head: HeadKind, plain: Composed) -> None:
    """Check that a head may stand beside the modules.

    Raises:
        MismatchError: it changes old logits, and a module has strict locality.
    """
    strict = [module.manifest.classes for module in plain.attached if module.manifest.head.strict]
    if head != "affine" and strict:
        raise MismatchError(f"head: expected affine beside modules of strict locality ({strict}), got {head}")


def read_rows(plain: Composed, used: ImageSet, report: Report, cancelled: Callable[[], bool]) -> Rows:
    """Rows with all pooled taps of the target.

    Raises:
        Cancelled: `cancelled` returned True.
    """

    def pause(done: float) -> None:
        _pause(cancelled)
        report(Progress("reading", READ * done, f"running {len(used):,} images"))

    return rows_of(plain, used.views, used.labels, plain.traced.taps, pause)


def different(images: ImageSet) -> Tensor:
    """Number of images of each class with different pixels, int64 (C,)."""
    pairs = torch.stack([images.labels, images.groups], dim=1).unique(dim=0)
    return torch.bincount(pairs[:, 0], minlength=len(images.classes))


def written(
    together: ModuleSet, numbers: Numbers, origin: Origin, without_ridge: str, verdict: Verdict | None
) -> Composition:
    """A composition of numbers, whose modules are in the order of `together`."""
    plain, ridge = together.plain, numbers.ridge
    tensors = {"balance": torch.tensor(numbers.balance, dtype=torch.float64)}
    if numbers.weight is not None and numbers.bias is not None:
        tensors |= {"head.weight": numbers.weight.float(), "head.bias": numbers.bias.float()}
    spec = None
    if ridge is not None:
        spec = RidgeSpec(
            taps=ridge.window.taps, features=ridge.window.features, prior=ridge.prior, weight=ridge.factor,
            images=int(ridge.sums.counts.sum()),
        )  # fmt: skip
        sums = ridge.sums
        tensors |= {"ridge.mean": sums.mean, "ridge.spread": sums.spread}
        tensors |= {"ridge.gram": packed(sums.gram), "ridge.cross": sums.cross}
    manifest = CompositionManifest(
        format=FORMAT, target=plain.traced.spec, target_fingerprint=together.fingerprint, modules=together.modules,
        head=numbers.kind, origin=origin, ridge=spec, without_ridge="" if spec else without_ridge, verdict=verdict,
        created_by=_software(),
    )  # fmt: skip
    return Composition(manifest, tensors)


def _loaded(bundles: Sequence[Bundle | Path | str]) -> list[Bundle]:
    return [one if isinstance(one, Bundle) else read_bundle(one) for one in bundles]


def _sources_in_order(
    bundles: Sequence[Bundle | Path | str], sources: Sequence[tuple[nn.Module, NetworkSpec] | None]
) -> list[tuple[nn.Module, NetworkSpec]]:
    """All sources in the order of the digests; empty if one is missing."""
    digests = [module_digest(one) for one in _loaded(bundles)]
    pairs = sorted(zip(digests, sources, strict=False), key=lambda one: one[0])
    return [source for _, source in pairs if source is not None] if None not in sources else []


def _check_classes(plain: Composed, used: ImageSet) -> None:
    for classes in (plain.traced.spec.classes, *(module.manifest.classes for module in plain.attached)):
        if not len(used.only(classes)):
            raise DataError(f"images: expected some of {classes}, got none; add images of the target and every module")


def _window(plain: Composed, used: ImageSet, most: int) -> tuple[Window | None, str]:
    """Features of the sums; None with the reason if the images are too few for sums that show no single image."""
    counts = different(used)
    present = int((counts > 0).sum())
    taps = plain.traced.taps
    window = window_of(taps, min(most, int(counts.sum()) - present))
    if window is None:
        return None, (
            f"sums: expected more different images, and at least {taps[-1].channels} features, got {int(counts.sum())} "
            f"images and at most {most} features; add images"
        )
    try:
        check_private(counts, window.features, "sums")
    except DataError as error:
        return None, str(error)
    return window, ""


def _pause(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("the composition was cancelled")


def _software() -> str:
    try:
        return f"pnc-zoo {version('pnc-zoo')}"
    except PackageNotFoundError:
        return "pnc-zoo"
