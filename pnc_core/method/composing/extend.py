"""Extend a composition by modules, and update it by labelled rows, without the earlier images.

The sums of the ridge regression grow by the images of the new step. They hold the target's features only, which no
module changes. Scales, offsets and the factor g of the earlier fit stay as they are, because fitting them needs images
of all classes. A new module starts at scale 1 and offset 0, the values that its own job fitted against the target.

References:
    Plackett, "Some theorems in least squares", 1950 (recursive least squares).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.errors import DataError, MismatchError
from pnc_core.images import ImageSet
from pnc_core.method.balance import rows_of
from pnc_core.method.composing.compose import ModuleSet, check_head, different, module_set, read_rows, written
from pnc_core.method.composing.numbers import Numbers, Ridge, ridge_features, with_ridge
from pnc_core.method.composing.ridge import Sums, Window, check_private, unpacked
from pnc_core.method.job import Report
from pnc_core.module.bundle import Bundle
from pnc_core.module.composition import Composition, Origin


def extend(
    target: tuple[nn.Module, NetworkSpec],
    bundles: Sequence[Bundle | Path | str],
    composition: Composition,
    images: ImageSet,
    *,
    sources: Sequence[tuple[nn.Module, NetworkSpec] | None] = (),
    report: Report = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Composition:
    """Extend a composition to further modules, with images of the new step only.

    Args:
        target: The target in eval mode, and its spec; not changed.
        bundles: Bundles of all modules, the earlier and the new ones, or paths of their files.
        composition: A composition of some of these modules, with sums; not changed.
        images: uint8 images of the new step, labelled by class name; images of earlier steps must not be among them,
            because they would count twice. Others and copies are ignored.
        sources: As for `compose`.
        report: Called with the progress.
        cancelled: Asked before each batch.

    Returns:
        A composition of all modules, with the same kind of head. The weights of the ridge regression equal those from
        all images of all steps at once. It has no verdict, because old images are missing.

    Raises:
        Cancelled: `cancelled` returned True.
        DataError: a class of a new module has no images, or the step has too few images for its sums to be kept.
        MismatchError: the composition is for another target or has modules that are not among the bundles, it has no
            sums, or its head is `joint`.
    """
    together = module_set(target, bundles, sources)
    _check_extends(together, composition)
    check_head(composition.manifest.head, together.plain)
    used = images.only(together.plain.classes).without_copies()
    _check_new_classes(together, composition, used)
    counts, ridge = different(used), ridge_of(composition)
    check_private(counts, ridge.window.features, "images of the new step")
    rows = read_rows(together.plain, used, report, cancelled)
    assert rows.features is not None
    old = composition.manifest.classes
    sums = ridge.sums.widened([old.index(name) if name in old else None for name in together.plain.classes])
    taps = together.plain.traced.taps
    sums = sums + sums.of(ridge_features(taps, rows.features, ridge.window), rows.labels)
    return with_sums(together, composition, replace(ridge, sums=sums), "extended")


def with_sums(together: ModuleSet, composition: Composition, ridge: Ridge, origin: Origin) -> Composition:
    """The composition of a set with other sums; modules that it does not have start at scale 1 and offset 0."""
    known = set(composition.digests)
    balance = [composition.balance_of(m.digest) if m.digest in known else (1.0, 0.0) for m in together.modules]
    numbers = Numbers(composition.manifest.head, balance, ridge=ridge)
    if numbers.kind == "ridge":
        numbers = with_ridge(numbers, ridge, together.plain.traced.taps)
    return written(together, numbers, origin, "", None)


def ridge_of(composition: Composition) -> Ridge:
    """The ridge regression of a composition.

    Raises:
        MismatchError: it has no sums.
    """
    spec, tensors = composition.manifest.ridge, composition.tensors
    if spec is None:
        raise MismatchError(
            f"composition: expected one with sums, got one without ({composition.manifest.without_ridge})"
        )
    gram = unpacked(tensors["ridge.gram"], spec.features + 1)
    sums = Sums(tensors["ridge.mean"], tensors["ridge.spread"], gram, tensors["ridge.cross"])
    return Ridge(sums, Window(spec.taps, spec.features), spec.prior, spec.weight)


class Online:
    """Recursive least squares: the ridge head of a composition, updated by labelled rows one after another.

    With P = (G + k I_0)^-1, a row z with the one-hot label y changes

        P := P - P z z' P / (1 + z' P z),      W := W + (y - W z) (P z)'

    which are the weights of all rows at once, up to rounding. An update costs O(R^2 + R C), a new solution O(R^3).
    """

    def __init__(
        self,
        target: tuple[nn.Module, NetworkSpec],
        bundles: Sequence[Bundle | Path | str],
        composition: Composition,
        sources: Sequence[tuple[nn.Module, NetworkSpec] | None] = (),
    ) -> None:
        """Start at a composition; arguments and errors as for `extend`.

        Raises:
            MismatchError: the composition has no ridge head, or is for another target or other modules.
        """
        self._together, self._composition = module_set(target, bundles, sources), composition
        _check_extends(self._together, composition)
        if composition.manifest.head != "ridge" or len(composition.digests) != len(self._together.modules):
            raise MismatchError(
                f"composition: expected one of exactly these modules with a ridge head, got {composition.digests} with "
                f"{composition.manifest.head}"
            )
        self._ridge = ridge_of(composition)
        sums = self._ridge.sums
        self._inverse = torch.linalg.inv(sums.gram + sums.penalty(self._ridge.prior))
        self._weights = sums.solve(self._ridge.prior)
        self._gained = Sums(sums.mean, sums.spread, torch.zeros_like(sums.gram), torch.zeros_like(sums.cross))

    @property
    def weights(self) -> Tensor:
        """W, float64 (C, R + 1), on standardised features."""
        return self._weights.clone()

    @property
    def rows(self) -> Tensor:
        """Number of rows of each class since the start, int64 (C,)."""
        return self._gained.counts

    def update(self, features: Tensor, label: int) -> None:
        """Take one labelled row.

        Args:
            features: The target's features, (R,), as `features` returns them.
            label: Index of the class in the composition's classes.

        Raises:
            DataError: the label or the number of features does not fit.
        """
        classes, width = self._weights.shape
        if features.shape != (width - 1,) or not 0 <= label < classes:
            raise DataError(
                f"row: expected {width - 1} features and a label from 0 to {classes - 1}, got {tuple(features.shape)} "
                f"and {label}"
            )
        z = self._ridge.sums.standardised(features[None])[0]
        gain = self._inverse @ z
        self._inverse -= torch.outer(gain, gain) / (1 + z @ gain)
        missed = -self._weights @ z
        missed[label] += 1
        # With the new P, P z = gain / (1 + z' gain).
        self._weights += torch.outer(missed, gain / (1 + z @ gain))
        self._gained.gram.addr_(z, z)
        self._gained.cross[:, label] += z

    def features(self, images: ImageSet) -> Tensor:
        """Features, float32 (N, R), of images: the target runs once."""
        plain = self._together.plain
        rows = rows_of(plain, images.views, images.labels, plain.traced.taps)
        assert rows.features is not None
        return ridge_features(plain.traced.taps, rows.features, self._ridge.window)

    def learn(self, images: ImageSet) -> int:
        """Take labelled images one after another; classes that the composition lacks are ignored.

        Returns:
            The number of images taken.
        """
        used = images.only(self._together.plain.classes)
        for row, label in zip(self.features(used), used.labels.tolist(), strict=True):
            self.update(row, label)
        return len(used)

    def composition(self) -> Composition:
        """The composition with the rows that were taken.

        Raises:
            DataError: so few rows were taken that the difference of both compositions could show a single one.
        """
        check_private(self.rows, self._ridge.window.features, "rows")
        sums = self._ridge.sums + self._gained
        return with_sums(self._together, self._composition, replace(self._ridge, sums=sums), "updated")


def _check_extends(together: ModuleSet, composition: Composition) -> None:
    manifest = composition.manifest
    if (together.fingerprint, together.plain.traced.spec) != (manifest.target_fingerprint, manifest.target):
        raise MismatchError(
            f"composition: made for the target {manifest.target_fingerprint}, got the target {together.fingerprint}, "
            "or one with another specification"
        )
    missing = sorted(set(composition.digests) - {module.digest for module in together.modules})
    if missing:
        raise MismatchError(f"bundles: expected all modules of the composition, got none for {missing}")
    if manifest.head == "joint":
        raise MismatchError("composition: expected the head affine or ridge, got joint, which needs the old images")


def _check_new_classes(together: ModuleSet, composition: Composition, used: ImageSet) -> None:
    new = [m for m in together.modules if m.digest not in composition.digests]
    for module in new:
        if not len(used.only(module.classes)):
            raise DataError(f"images: expected some of {module.classes}, got none; add images of the new modules")
