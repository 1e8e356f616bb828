"""Clone between different architectures: a grid of targets and sources on CIFAR-10.

    python -m benchmarks.heterogeneous --data-root DATA --seeds 0,1,2 --out results

Every cell is one job with the preset `fast`. It is compared with the linear probe, which has the target's taps
and the same images, but no source.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from app.plots import margin_grid, save
from benchmarks.comparison.baselines import linear_probe
from benchmarks.comparison.cloning import clone_and_attach
from benchmarks.comparison.data import load
from benchmarks.comparison.task import Record, Task, run_method
from benchmarks.comparison.zoo import Network, train_or_load, zoo_recipe
from benchmarks.reports.machine import resolve
from benchmarks.reports.rows import read_rows_to_resume, write_rows
from benchmarks.reports.tables import markdown

ARCHITECTURES = ("resnet20", "vgg", "mobilenetv2", "cnn")
PROBE = "probe"
"""Name of the linear probe in the report's column of sources."""
SLOW_IN_BFLOAT16 = {"mobilenetv2"}
"""Architectures with depthwise convolutions, which train 1.5 times as fast in float32 on a processor."""


@dataclass(frozen=True)
class Cell(Record):
    """A record with the architectures of target and source."""

    target: str
    source: str


def main(
    out: Annotated[Path, typer.Option(help="Folder for heterogeneous.json, heterogeneous.md and trained networks.")],
    data_root: Annotated[Path, typer.Option(help="Folder that torchvision reads the images from.")],
    seeds: Annotated[str, typer.Option(help="Seeds, a list; each divides the classes differently.")] = "0,1,2",
    fraction: Annotated[float, typer.Option(help="Share of the images that methods may learn from.")] = 0.3,
    epochs: Annotated[int, typer.Option(help="Training epochs of each of a seed's eight networks.")] = 8,
    precision: Annotated[
        str, typer.Option(help="bfloat16 for architectures that it makes faster, float32, or auto: the faster one.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep the cells in heterogeneous.json, measure the rest.")] = False,
) -> None:
    """Measure the grid."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    console, file = Console(), out / "heterogeneous.json"
    _, precision = resolve("cpu", precision, out, console)
    cells = [Cell(**row) for row in read_rows_to_resume(file, resume)]
    done = {(cell.split, cell.target, cell.source) for cell in cells}
    pairs = [(t, s) for t in ARCHITECTURES for s in ("none", *ARCHITECTURES)]
    todo = [(int(seed), *pair) for seed in seeds.split(",") for pair in pairs if (int(seed), *pair) not in done]
    for seed, target, source in track(todo, "cells", console=console):
        cell = measure(data_root, seed, (target, source), (fraction, epochs, precision), out / "nets")
        cells.append(cell)
        write_rows(file, cells)
        console.print(f"{seed} {source} -> {target}: average {cell.avg:.4f}  size {cell.size_ratio:.2f}")
    console.print(f"report: {report(cells, out)}")


def report(cells: list[Cell], out: Path) -> Path:
    """Write `heterogeneous.md`, and a plot of the gain of every pair over the linear probe."""
    order = {name: place for place, name in enumerate(("none", *ARCHITECTURES))}
    cells = sorted(cells, key=lambda cell: (order[cell.target], order[cell.source], cell.split))
    records = [{**asdict(cell), "source": cell.source if order[cell.source] else PROBE} for cell in cells]
    labels = {"row_label": "target", "column_label": "linear probe, or source"}
    save(margin_grid(records, row="target", column="source", value="avg", alone=PROBE, **labels), out / "grid")
    shares = "avg", "old", "new", "locality"
    path = out / "heterogeneous.md"
    path.write_text(markdown(records, ("target", "source"), shares, ("size_ratio", "seconds")) + "\n")
    return path


def measure(data_root: Path, seed: int, pair: tuple[str, str], how: tuple[float, int, str], nets: Path) -> Cell:
    """Measure one cell.

    Args:
        data_root: Folder of CIFAR-10.
        seed: Divides the classes.
        pair: Architectures of target and source; source `none` measures the linear probe.
        how: Share of the images, training epochs of the networks, precision.
        nets: Folder of trained networks.
    """
    split = load("cifar10", data_root, seed)
    fraction, epochs, precision = how

    def network(architecture: str, classes: tuple[str, ...]) -> Network:
        recipe = replace(zoo_recipe(split, "cpu", _precision(precision, architecture)), epochs=epochs)
        return train_or_load(split, classes, nets, recipe, architecture=architecture)

    is_probe = pair[1] == "none"
    target = network(pair[0], split.target)
    source = network(pair[0] if is_probe else pair[1], split.source)
    task = Task(split, target, source, fraction, precision=_precision(precision, *pair))
    if is_probe:
        return Cell(**asdict(run_method(task, "linear_probe", linear_probe)), target=pair[0], source=pair[1])
    record = run_method(task, "pnc_fast", lambda task: clone_and_attach(task, "pnc_fast"))
    return Cell(**asdict(record), target=pair[0], source=pair[1])


def _precision(wanted: str, *architectures: str) -> str:
    return "float32" if SLOW_IN_BFLOAT16.intersection(architectures) else wanted


if __name__ == "__main__":
    typer.run(main)
