"""Processor time and memory of one cloning job, by number of screened positions, cloned classes and images.

    python -m benchmarks.costs --data-root DATA --out results

CIFAR-100, a target and a source of 50 classes each, preset `fast`. Every job runs in a separate process. Its peak
of memory counts from the memory that the process holds before the job begins.
"""

import multiprocessing
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

import pnc_core.method.search
from app.plots import cost_curve, save
from benchmarks.comparison.cloning import config_of
from benchmarks.comparison.data import load
from benchmarks.comparison.task import Task
from benchmarks.comparison.zoo import train_or_load, zoo_recipe
from benchmarks.reports.machine import resolve
from benchmarks.reports.rows import read_rows_to_resume, write_rows
from benchmarks.reports.tables import markdown
from pnc_core.method.clone import clone

USUAL = {"positions": 32, "classes": 10, "images": 6000}
SWEEPS = {"positions": (1, 4, 16, 32, 64), "classes": (2, 5, 10, 25, 50), "images": (1000, 2000, 4000, 8000, 16000)}


@dataclass(frozen=True)
class Cost:
    """Cost of one job."""

    swept: str
    positions: int
    """Limit of screened pairs of positions."""
    classes: int
    images: int
    screened: int
    """Number of screened pairs."""
    repeat: int
    seconds: float
    """Processor time."""
    megabytes: float
    """Peak of memory, less the memory held before the job began."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for costs.json, costs.md, plots and the trained networks.")],
    data_root: Annotated[Path, typer.Option(help="Folder that torchvision reads the images from.")],
    repeats: Annotated[int, typer.Option(help="Jobs of every size.")] = 3,
    precision: Annotated[str, typer.Option(help="bfloat16, float32, or auto: the faster one.")] = "auto",
    resume: Annotated[bool, typer.Option(help="Keep the jobs in costs.json, measure the rest.")] = False,
) -> None:
    """Measure every size."""
    out.mkdir(parents=True, exist_ok=True)
    console, file = Console(), out / "costs.json"
    _, precision = resolve("cpu", precision, out, console)
    rows = [Cost(**row) for row in read_rows_to_resume(file, resume)]
    done = {(row.swept, getattr(row, row.swept), row.repeat) for row in rows}
    sizes = [(swept, size) for swept, many in SWEEPS.items() for size in many]
    todo = [(*size, repeat) for repeat in range(repeats) for size in sizes if (*size, repeat) not in done]
    for swept, size, repeat in track(todo, "jobs", console=console):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            job = swept, {**USUAL, swept: size}, repeat, precision
            rows.append(pool.apply(measure, (*job, data_root, out / "nets")))
        write_rows(file, rows)
    console.print(f"report: {report(rows, out)}")


def measure(swept: str, sizes: dict[str, int], repeat: int, precision: str, data_root: Path, nets: Path) -> Cost:
    """Run one job in this process and measure it."""
    torch.set_num_threads(1)
    split = load("cifar100", data_root, 0)
    recipe = zoo_recipe(split, "cpu", precision)
    target, source = (train_or_load(split, classes, nets, recipe) for classes in (split.target, split.source))
    cloned = split.source[: sizes["classes"]]
    images = split.train.only((*split.target, *cloned))
    images = images.sample(min(sizes["images"], len(images)), torch.Generator().manual_seed(repeat))
    task = Task(replace(split, cloned=cloned), target, source, 1.0, seed=repeat, precision=precision)
    pnc_core.method.search.MAX_CANDIDATES = sizes["positions"]
    config, trials = config_of(task, "pnc_fast"), []
    _reset_peak()
    started, held = time.process_time(), _peak_megabytes()
    clone(target, source, images, config, report=lambda progress: trials.append("trial" in progress.data))
    seconds, megabytes = time.process_time() - started, _peak_megabytes() - held
    screened = sum(trials) - 1  # the last report with a trial describes the finished module
    return Cost(swept, **sizes, screened=screened, repeat=repeat, seconds=seconds, megabytes=megabytes)


def _reset_peak() -> None:
    """Reset the process's peak of memory, because reading the images needs more memory than some jobs."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_megabytes() -> float:
    """Peak of memory since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def report(rows: list[Cost], out: Path) -> Path:
    """Write `costs.md`, and curves of time and of memory over each swept number."""
    parts = []
    for swept in SWEEPS:
        records = [asdict(row) for row in rows if row.swept == swept]
        x = "screened" if swept == "positions" else swept
        for y, label in (("seconds", "processor time (s)"), ("megabytes", "memory (MB)")):
            save(cost_curve(records, x=x, y=y, x_label=swept, y_label=label), out / f"costs-{swept}-{y}")
        parts.append(markdown(records, (x,), (), ("seconds", "megabytes"), each="jobs"))
    path = out / "costs.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


if __name__ == "__main__":
    typer.run(main)
