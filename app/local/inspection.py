"""`pnc inspect`: positions and channel groups of an architecture."""

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table

from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import INPUT, Traced, trace
from pnc_core.module.tail import open_tail


def traced_network(architecture: str, size: int, classes: int) -> Traced:
    """Trace an architecture on the meta device, without memory for its weights.

    Args:
        architecture: Name of the architecture.
        size: Height and width of the input, in pixels.
        classes: Number of classes.

    Raises:
        PncError: the architecture is unknown or has no position to cut at.
    """
    names = tuple(f"class {i}" for i in range(classes))
    spec = NetworkSpec(
        architecture=architecture, classes=names, input_size=(3, size, size), mean=(0, 0, 0), std=(1, 1, 1)
    )
    return trace(build_network(spec, device="meta"), spec)


def json_values(traced: Traced) -> dict[str, Any]:
    """Positions and channel groups as JSON values."""
    tail = open_tail(traced, INPUT, range(len(traced.spec.classes)))
    groups = [
        {"made_by": list(group.producers), "channels": group.width, "read_by": [c.module for c in group.consumers]}
        for group in tail.groups
    ]
    positions = [asdict(info) for info in traced.positions]
    return {
        "architecture": traced.spec.architecture,
        "numbers": traced.parameter_count,
        "positions": positions,
        "groups": groups,
    }


def tables(architecture: str, traced: Traced) -> Group:
    """Positions and channel groups as tables."""
    return Group(_positions(architecture, traced), _groups(traced))


def _positions(architecture: str, traced: Traced) -> Table:
    table = Table(title=f"Positions of {architecture} ({traced.parameter_count:,} numbers)")
    for column in ("position", "channels", "grid", "depth"):
        table.add_column(column, justify="left" if column == "position" else "right", overflow="fold")
    for info in traced.positions:
        table.add_row(info.name, str(info.channels), " x ".join(map(str, info.grid)), f"{info.depth:.2f}")
    return table


def _groups(traced: Traced) -> Table:
    tail = open_tail(traced, INPUT, range(len(traced.spec.classes)))
    table = Table(title="Channel groups that can be pruned")
    for column in ("made by", "channels", "read by"):
        table.add_column(column, justify="right" if column == "channels" else "left", overflow="fold")
    for group in tail.groups:
        table.add_row(", ".join(group.producers), str(group.width), ", ".join(c.module for c in group.consumers))
    return table
