"""Find the architecture of a checkpoint's outline: `python -m workers.networks.identification`.

The page that adds a model runs this module as a child process, because building networks needs torch and the API does
without it. Standard input has the outline and the architecture that the visitor wants, if any; standard output has the
answer. Both are JSON.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from app.imports.sources import Source, SourceError
from app.sources import from_torchvision
from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError, PncError
from pnc_core.graph.candidates import Facts
from pnc_core.graph.identify import Fit, Near, compare, identify
from pnc_core.networks.outline import Outline, read_outline

MOST_FITS = 6
"""Architectures in an answer."""
MOST_NAMES = 3
"""Names of tensors in a difference."""


def answer(document: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> dict[str, Any]:
    """Architectures that take the tensors of an outline.

    Args:
        document: See `pnc_core.networks.outline`.
        wanted: `architecture`, `options` and `input_size` of the only network to compare with; None: all are compared.

    Raises:
        PncError: the outline has no network's tensors, or the wanted network cannot be built.
    """
    outline = read_outline(document)
    facts = Facts(outline.shapes, outline.ordered)
    if wanted is None:
        found = identify(outline.shapes, ordered=outline.ordered, noted=outline.architecture)
        chosen, fits, near = found.chosen, list(found.fits[:MOST_FITS]), list(found.near)
    else:
        one = compare(_spec(wanted, facts), outline.shapes, ordered=outline.ordered)
        fits, near = ([one], []) if isinstance(one, Fit) else ([], [one])
        chosen = fits[0] if fits else None
    return {
        "notes": list(outline.notes),
        "tensors": len(outline.shapes),
        "classes": facts.classes,
        "channels": facts.channels,
        "chosen": None if chosen is None else fits.index(chosen),
        "fits": [_fit(fit, facts, outline) for fit in fits],
        "nearest": [_near(one) for one in near],
    }


def _spec(wanted: Mapping[str, Any], facts: Facts) -> NetworkSpec:
    """A network of the wanted architecture, with as many classes as the last layer has rows."""
    size = wanted.get("input_size") or (facts.channels, *_side(str(wanted["architecture"])))
    return NetworkSpec(
        architecture=str(wanted["architecture"]), classes=tuple(map(str, range(max(2, facts.classes)))),
        input_size=size, mean=(0.0,) * size[0], std=(1.0,) * size[0], options=dict(wanted["options"]),
    )  # fmt: skip


def _side(architecture: str) -> tuple[int, int]:
    return (224, 224) if architecture.startswith(("torchvision/", "timm/")) else (32, 32)


def _fit(fit: Fit, facts: Facts, outline: Outline) -> dict[str, Any]:
    known, usual = fit.fields(facts), {}
    if "mean" not in known:
        usual = {name: value for name, value in _usual(fit.architecture, facts.classes).items() if name not in known}
    return {
        "architecture": fit.architecture,
        "options": fit.options,
        "by": fit.how,
        "published": fit.published.origin if fit.published else None,
        "fits_as_well": fit.silent,
        "renamed": len(fit.renamed),
        "known": {name: value for name, value in known.items() if name not in ("architecture", "options")},
        "usual": usual,
        "plan": [[outline.places[old], new] for old, new in fit.key_map.items()],
    }


def _usual(architecture: str, classes: int) -> dict[str, Any]:
    """Preprocessing of the weights that a library publishes for its architecture, and their classes if as many."""
    library, _, name = architecture.partition("/")
    try:
        if library == "torchvision":
            weights = from_torchvision.weights_of(Source("torchvision", architecture, name))
            spec = from_torchvision.spec_of(name, weights)
        elif library == "timm":
            from app.sources import from_timm  # needs packages that only the extra timm brings

            spec = from_timm.published_spec(name)
        else:
            return {}
    except (SourceError, ConfigError):
        return {}
    fields = spec.to_dict()
    kept = ("input_size", "mean", "std", "preprocessing", *(("classes",) if len(spec.classes) == classes else ()))
    return {key: fields[key] for key in kept if key in fields}


def _near(near: Near) -> dict[str, Any]:
    fields = asdict(near)
    for name in ("missing", "unexpected", "other"):
        fields[name], fields[f"{name}_count"] = list(fields[name][:MOST_NAMES]), len(fields[name])
    return fields


def main() -> None:
    """Entry of the child process."""
    asked = json.load(sys.stdin)
    try:
        told = answer(asked["outline"], asked["wanted"])
    except PncError as error:
        told = {"error": {"code": error.code, "detail": str(error)}}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
