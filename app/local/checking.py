"""Check a network's files on labelled images of this machine, before anything is sent."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.evidence.images import read_images
from app.local.bringing import NOT_SCALED
from app.models.advice import options, result_of
from pnc_client.sources import SourceError, open_images
from pnc_core.analysis.check import check, find_scaling
from pnc_core.config import NetworkSpec
from pnc_core.errors import DataError
from pnc_core.graph.architectures import load_network

MOST_ALTERNATIVES = 3
"""Titles of equally good scalings that are listed."""


def checked(
    spec: NetworkSpec, weights: Path, images: Path, note: Callable[[str], object], *, scaling: bool = False
) -> tuple[NetworkSpec, dict[str, Any]]:
    """Check a network, after finding mean and standard deviation if they are not known.

    Args:
        spec: Description of the network.
        weights: Safetensors.
        images: Any source of `pnc_client.sources.open_images`.
        note: Told the scaling that was found.
        scaling: `NOT_SCALED` as mean and standard deviation means that they are unknown.

    Returns:
        The description with known scaling, and the fields of a `VersionCheck`.

    Raises:
        PncError: the network cannot be loaded, or the images cannot be used.
    """
    known = set(spec.classes)
    network = load_network(spec, weights)
    found = read_images(images, [name for name in _classes(images) if name in known], [spec.geometry], note=note)
    if scaling and _is_not_scaled(spec):
        best = find_scaling(network, spec, found)
        rule = best.spec.preprocessing
        changes: dict[str, Any] = {"mean": list(best.spec.mean), "std": list(best.spec.std)}
        differs = {n: getattr(rule, n) for n in ("channel_order", "value_range")}
        plain = {n: getattr(spec.preprocessing, n) for n in differs}
        changes |= {"preprocessing": differs} if differs != plain else {}
        note(f"found {best.title}: {options(changes)}; accuracy {best.score} that did not choose it")
        if best.alternatives:
            others = "; ".join(best.alternatives[:MOST_ALTERNATIVES])
            note(f"the images do not tell apart by accuracy: {others}; give --mean and --std if you know them")
        spec = replace(spec, mean=best.spec.mean, std=best.spec.std, preprocessing=rule)
    return spec, {**result_of(check(network, spec, found)), "dataset": None}


def _is_not_scaled(spec: NetworkSpec) -> bool:
    mean, std = NOT_SCALED
    return set(spec.mean) == {mean} and set(spec.std) == {std}


def _classes(path: Path) -> tuple[str, ...]:
    """Class names of images, in the order of their labels."""
    try:
        return tuple(open_images(path).classes or ())
    except SourceError as error:
        raise DataError(str(error)) from None
