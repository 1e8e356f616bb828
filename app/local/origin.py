"""`pnc modules origin`: whose filters are in a file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from safetensors.torch import load_file
from torch import Tensor

from pnc_core.analysis.origin import FOUND, LayerOrigin, Origin, origin
from pnc_core.errors import BundleError
from pnc_core.module.bundle import MANIFEST_KEY, MODULE_PREFIX, read_bundle
from pnc_core.networks.files import as_safetensors
from pnc_core.tensorfile import read_header

BAR = 20
"""Characters of a full bar."""


def origin_of_file(suspect: Path, source: Path, *, any_layer: bool = False) -> Origin:
    """Look for filters of a source in a file of weights or a full bundle.

    Raises:
        TensorFileError: a file is not whole, or holds code.
        BundleError: the suspect is a thin bundle, which holds no filters.
        DataError: the two have nothing that can be compared.
        OSError: a file cannot be read.
    """
    return origin(_tensors(suspect), _tensors(source), any_layer=any_layer)


def _tensors(path: Path) -> dict[str, Tensor]:
    with as_safetensors(path) as file:
        if MANIFEST_KEY not in read_header(file).metadata:
            return load_file(file)
        bundle = read_bundle(file)
    if bundle.manifest.payload == "thin":
        raise BundleError(
            f"{path}: expected weights or a full bundle, got a thin one, which holds none of the source's"
        )
    return {n.removeprefix(MODULE_PREFIX): t for n, t in bundle.tensors.items() if n.startswith(MODULE_PREFIX)}


def described(found: Origin) -> dict[str, Any]:
    """All that was found, as plain values."""
    layers = [{**asdict(layer), "matched": layer.matched} for layer in found.layers]
    summary = {"found": found.found, "p_value": found.p_value, "matched": found.matched, "channels": found.channels}
    return {**summary, "layers": layers}


def shown(found: Origin) -> Group:
    """The same for people: one line a layer, and the verdict."""
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "the source's", "", "channels", "alike", "runner-up", "by chance", "p"):
        table.add_column(
            column, justify="left" if column in ("layer", "the source's", "") else "right", overflow="fold"
        )
    for layer in found.layers:
        table.add_row(*map(Text, _cells(layer)))
    return Group(table, Text(""), Text(_verdict(found)))


def _cells(layer: LayerOrigin) -> tuple[str, ...]:
    share = layer.matched / len(layer.rows)
    return (
        layer.layer,
        "same name" if layer.source_layer == layer.layer else layer.source_layer,
        "█" * round(BAR * share) + "░" * (BAR - round(BAR * share)),
        f"{layer.matched} of {len(layer.rows)}",
        f"{layer.similarity:.3f}",
        f"{layer.runner_up:.3f}",
        f"+{layer.by_chance:.3f}",
        f"{layer.p_value:.1e}",
    )


def _verdict(found: Origin) -> str:
    if not found.found:
        return f"No filters of the source were found (p = {found.p_value:.2g}; below {FOUND:g} they are)."
    return (
        f"Filters of the source were found: {found.matched:,} of {found.channels:,} channels, p = {found.p_value:.1e}. "
        "One is cut from the other, or both are from the same weights."
    )
