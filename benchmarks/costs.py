"""What one cloning job costs, over the number of positions screened, of classes cloned and of images.

    python -m benchmarks.costs --data-root DATA --out results

CIFAR-100, a target and a source of 50 classes each, preset `fast`. Every job runs in a process of its own, so that
its peak of memory is its own; what the process needs before the job begins is taken off.
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
from benchmarks.arena import Arena
from benchmarks.cloning import config_of
from benchmarks.data import load
from benchmarks.machine import settled
from benchmarks.paper import earlier, write_rows
from benchmarks.report import markdown
from benchmarks.zoo import train_or_load, zoo_recipe
from pnc_core.method.clone import clone

USUAL = {"positions": 32, "classes": 10, "images": 6000}
SWEEPS = {"positions": (1, 4, 16, 32, 64), "classes": (2, 5, 10, 25, 50), "images": (1000, 2000, 4000, 8000, 16000)}


@dataclass(frozen=True)
class Cost:
    """One job."""

    swept: str
    positions: int
    """As many pairs could be screened at most."""
    classes: int
    images: int
    screened: int
    """As many pairs were."""
    repeat: int
    seconds: float
    """Processor time."""
    megabytes: float
    """Most memory held, above what the process held before the job began."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for costs.json, costs.md, plots and the trained networks.")],
    data_root: Annotated[Path, typer.Option(help="Folder that torchvision reads the images from.")],
    repeats: Annotated[int, typer.Option(help="Jobs of every size.")] = 3,
    precision: Annotated[str, typer.Option(help="bfloat16, float32, or auto: what is quicker.")] = "auto",
    resume: Annotated[bool, typer.Option(help="Keep what costs.json has and measure the rest.")] = False,
) -> None:
    """Measure every size."""
    out.mkdir(parents=True, exist_ok=True)
    console, file = Console(), out / "costs.json"
    _, precision = settled("cpu", precision, out, console)
    rows = [Cost(**row) for row in earlier(file, resume)]
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
    """One job in this process."""
    torch.set_num_threads(1)
    split = load("cifar100", data_root, 0)
    recipe = zoo_recipe(split, "cpu", precision)
    target, source = (train_or_load(split, classes, nets, recipe) for classes in (split.target, split.source))
    cloned = split.source[: sizes["classes"]]
    images = split.train.only((*split.target, *cloned))
    images = images.sample(min(sizes["images"], len(images)), torch.Generator().manual_seed(repeat))
    arena = Arena(replace(split, cloned=cloned), target, source, 1.0, seed=repeat, precision=precision)
    pnc_core.method.search.MAX_CANDIDATES = sizes["positions"]
    config, trials = config_of(arena, "pnc_fast"), []
    _forget_peak()
    started, held = time.process_time(), _megabytes()
    clone(target, source, images, config, report=lambda progress: trials.append("trial" in progress.data))
    seconds, megabytes = time.process_time() - started, _megabytes() - held
    screened = sum(trials) - 1  # the last one reported is the finished module
    return Cost(swept, **sizes, screened=screened, repeat=repeat, seconds=seconds, megabytes=megabytes)


def _forget_peak() -> None:
    """Let the peak of this process's memory begin anew: reading the images took more than many a job does."""
    Path("/proc/self/clear_refs").write_text("5")


def _megabytes() -> float:
    """The peak since then."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def report(rows: list[Cost], out: Path) -> Path:
    """Write `costs.md` and two curves for each of the three numbers."""
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
