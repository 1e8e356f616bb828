"""`pnc inspect`: what the library sees in an architecture."""

from rich.console import Console
from rich.table import Table

from pnc_core.config import NetworkSpec
from pnc_core.extract import open_tail
from pnc_core.networks import build_network
from pnc_core.positions import INPUT, Traced, trace


def print_network(architecture: str, size: int, classes: int, console: Console) -> None:
    """Print positions and channel groups; nothing is allocated for the weights.

    Raises:
        PncError: the architecture is unknown or cannot be cut.
    """
    names = tuple(f"class {i}" for i in range(classes))
    spec = NetworkSpec(
        architecture=architecture, classes=names, input_size=(3, size, size), mean=(0, 0, 0), std=(1, 1, 1)
    )
    traced = trace(build_network(spec, device="meta"), spec)
    console.print(_positions(architecture, traced))
    console.print(_groups(traced))


def _positions(architecture: str, traced: Traced) -> Table:
    table = Table(title=f"Positions of {architecture} ({traced.numbers:,} numbers)")
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
