"""`pnc models identify`: the architectures of a file of weights, for people and for programs."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.local.bringing import named, title
from pnc_core.graph.identify import Identified, Near

_HOW = {"names": "all names", "order": "shapes in order", "shapes": "shapes"}


def described(path: Path, found: Identified, notes: tuple[str, ...]) -> dict[str, Any]:
    """The result as plain values; a key map has the names that change."""
    return {
        "file": path.name,
        "tensors": len(found.facts.shapes),
        "classes": found.facts.classes,
        "channels": found.facts.channels,
        "notes": list(notes),
        "chosen": found.fits.index(found.chosen) if found.chosen else None,
        "fits": [
            {
                "architecture": fit.architecture,
                "options": fit.options,
                "by": fit.how,
                "published": fit.published.origin if fit.published else None,
                "fits_as_well": fit.silent,
                "key_map": fit.renamed,
            }
            for fit in found.fits
        ],
        "nearest": [
            {
                "architecture": near.architecture,
                "options": near.options,
                "likeness": round(near.likeness, 3),
                "missing": list(near.missing),
                "unexpected": list(near.unexpected),
                "other_shapes": list(near.other),
            }
            for near in found.near
        ],
    }


def shown(path: Path, found: Identified) -> RenderableType:
    """The result for people."""
    facts = found.facts
    first = f"{path.name}: {len(facts.shapes)} tensors, {facts.classes} classes, {facts.channels} channels"
    parts: list[RenderableType] = [Text(first), _fits(found) if found.fits else _nearest(found)]
    parts += [Text(f"{title(f)}: the same tensors fit {', '.join(f.silent)} as well") for f in found.fits if f.silent]
    return Group(*parts, Text(_advice(path, found)))


def _advice(path: Path, found: Identified) -> str:
    if found.chosen is not None:
        return f"pnc models push NAME {path.name} takes {title(found.chosen)}; check its accuracy"
    if found.fits:
        return "Several networks take these tensors and compute different logits: choose with --architecture and --set."
    return "No known architecture takes these tensors; --key-map FILE renames or leaves out some of them."


def _table(*columns: str) -> Table:
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def _fits(found: Identified) -> Table:
    table = _table("architecture", "found by", "renamed", "published by")
    for fit in found.fits:
        table.add_row(
            named(fit.architecture, fit.options),
            _HOW[fit.how],
            str(len(fit.renamed)),
            fit.published.origin if fit.published else "",
        )
    return table


def _nearest(found: Identified) -> Table:
    table = _table("nearest", "alike", "missing", "unexpected", "other shape")
    for near in found.near:
        table.add_row(named(near.architecture, near.options), f"{near.likeness:.0%}", *_differences(near))
    return table


def _differences(near: Near) -> list[str]:
    return [
        "\n".join(names[:3]) + (f"\nand {len(names) - 3} more" if len(names) > 3 else "")
        for names in (near.missing, near.unexpected, near.other)
    ]
