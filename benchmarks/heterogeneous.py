"""Clone between architectures: a grid of targets and sources that have nothing in common, on CIFAR-10.

    python -m benchmarks.heterogeneous --data-root DATA --seeds 0,1,2 --out results

Every cell is one job with the preset `fast`; beside it stands the linear probe, which has the target's taps
and the same images, but not the source.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from app.plots import margin_grid, save
from benchmarks.arena import Arena, Record, compete
from benchmarks.cloning import cloned
from benchmarks.data import load
from benchmarks.machine import settled
from benchmarks.paper import earlier, write_rows
from benchmarks.report import markdown
from benchmarks.rivals import linear_probe
from benchmarks.zoo import Network, train_or_load, zoo_recipe

ARCHITECTURES = ("resnet20", "vgg", "mobilenetv2", "cnn")
PROBE = "probe"
"""What stands in the reports for a source when there is none."""
SLOW_IN_BFLOAT16 = {"mobilenetv2"}
"""Depthwise convolutions: on a processor float32 trains them 1.5 times as fast."""


@dataclass(frozen=True)
class Cell(Record):
    """A record with the architectures of both sides."""

    target: str
    source: str


def main(
    out: Annotated[Path, typer.Option(help="Folder for heterogeneous.json, heterogeneous.md and trained networks.")],
    data_root: Annotated[Path, typer.Option(help="Folder that torchvision reads the images from.")],
    seeds: Annotated[str, typer.Option(help="Each divides the classes anew.")] = "0,1,2",
    fraction: Annotated[float, typer.Option(help="Share of the images that may be learnt from.")] = 0.3,
    epochs: Annotated[int, typer.Option(help="Epochs that each of a seed's eight networks is trained for.")] = 8,
    precision: Annotated[
        str, typer.Option(help="bfloat16 where an architecture gains by it, float32, or auto: what is quicker here.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep what heterogeneous.json has and measure the rest.")] = False,
) -> None:
    """Measure the grid."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    console, file = Console(), out / "heterogeneous.json"
    _, precision = settled("cpu", precision, out, console)
    cells = [Cell(**row) for row in earlier(file, resume)]
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
    """Write `heterogeneous.md` and a picture of what every pair gains over the probe."""
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
    """One cell, by share of the images, epochs of the networks and precision; a source `none` is the linear probe."""
    split = load("cifar10", data_root, seed)
    fraction, epochs, precision = how

    def network(architecture: str, classes: tuple[str, ...]) -> Network:
        recipe = replace(zoo_recipe(split, "cpu", _precision(precision, architecture)), epochs=epochs)
        return train_or_load(split, classes, nets, recipe, architecture=architecture)

    alone = pair[1] == "none"
    target = network(pair[0], split.target)
    source = network(pair[0] if alone else pair[1], split.source)
    arena = Arena(split, target, source, fraction, precision=_precision(precision, *pair))
    if alone:
        return Cell(**asdict(compete(arena, "linear_probe", linear_probe)), target=pair[0], source=pair[1])
    record = compete(arena, "pnc_fast", lambda here: cloned(here, "pnc_fast"))
    return Cell(**asdict(record), target=pair[0], source=pair[1])


def _precision(wanted: str, *architectures: str) -> str:
    return "float32" if SLOW_IN_BFLOAT16.intersection(architectures) else wanted


if __name__ == "__main__":
    typer.run(main)
