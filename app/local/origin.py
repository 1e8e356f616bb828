"""`pnc modules origin`: test whether a file holds filters of a source."""

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
"""Length of a full bar, in characters."""


def origin_of_file(suspect: Path, source: Path, *, any_layer: bool = False) -> Origin:
    """Search weights or a full bundle for filters of a source.

    Args:
        suspect: Weights or a full bundle.
        source: Weights of the source.
        any_layer: Compare each layer with every layer of the source, not only with the layer of the same name.

    Raises:
        TensorFileError: a file is damaged, or holds code.
        BundleError: the suspect is a thin bundle, which holds no filters.
        DataError: the two files have no comparable layers.
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
            f"{path}: expected weights or a full bundle, got a thin bundle, which holds no filters of the source"
        )
    return {n.removeprefix(MODULE_PREFIX): t for n, t in bundle.tensors.items() if n.startswith(MODULE_PREFIX)}


def json_values(found: Origin) -> dict[str, Any]:
    """The result of the search as JSON values."""
    layers = [{**asdict(layer), "matched": layer.matched} for layer in found.layers]
    summary = {"found": found.found, "p_value": found.p_value, "matched": found.matched, "channels": found.channels}
    return {**summary, "layers": layers}


def as_table(found: Origin) -> Group:
    """The result of the search for people: a table with one row per layer, and the conclusion."""
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "source layer", "", "channels", "similarity", "runner-up", "by chance", "p"):
        table.add_column(
            column, justify="left" if column in ("layer", "source layer", "") else "right", overflow="fold"
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
        return f"No filters of the source were found (p = {found.p_value:.2g}, not below {FOUND:g})."
    return (
        f"Filters of the source were found: {found.matched:,} of {found.channels:,} channels, p = {found.p_value:.1e}. "
        "One network was cut from the other, or both were made from the same weights."
    )
