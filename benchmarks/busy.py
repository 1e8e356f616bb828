"""Slowdown of a job on a busy machine, with torch's default threads and with the service's.

    python -m benchmarks.busy [--quick]
    python -m benchmarks.busy --threads       the cost of a network above which a second thread is worth it

The demo's job runs in a separate process, alone and next to processes that only compute. The settings take turns, so
that other load on the machine affects all of them. A run that reaches the limit is stopped and counts as the limit.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from app.process.resources import processors

CALLS = 3
SPIN = "import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: sum(range(100_000))"
SETTINGS = ("torch's own", "passive", "one thread", "the service's")
SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""Default waiting of OpenMP: the first variable decides for GNU's library, the second for LLVM's."""
OURS = (*SPINNING, processors.THREADS, "PNC_SHARED_THREADS", *processors.WAITING)
console = Console()


def main(
    busy: Annotated[int | None, typer.Option(help="Processes next to the job; default: one per processor.")] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each setting.", min=1)] = 3,
    limit: Annotated[int, typer.Option(help="Seconds after which a run is stopped.", min=1)] = 300,
    quick: Annotated[bool, typer.Option("--quick", help="One round of a short job.")] = False,
    threads: Annotated[bool, typer.Option("--threads", help="Time networks with one thread and with two.")] = False,
) -> None:
    """Print a table, and one JSON object as the last line."""
    if threads:
        compare_threads(1 if quick else 5)
        return
    rounds = 1 if quick else rounds
    other_count = busy if busy is not None else processors.share_of(1)
    seconds: dict[tuple[str, int], list[float]] = {}
    with TemporaryDirectory(prefix="pnc-busy-") as folder:
        prepare(Path(folder))
        for number in range(rounds):
            for setting in SETTINGS:
                for others in (0, other_count):
                    took = time_job(Path(folder), setting, others, limit, quick=quick)
                    seconds.setdefault((setting, others), []).append(took)
                    console.print(f"round {number + 1}: {setting}, {others} others: {took:.1f} s", highlight=False)
    print_table(seconds, other_count, limit)


def prepare(folder: Path) -> None:
    """Train the demo's two networks and write them and the images to the folder."""
    import safetensors.torch

    from app.demo import DIGITS, png_rows
    from app.demo import prepare as demo_material
    from pnc_client.parquet import write_parquet

    material = demo_material(0, console)
    write_parquet(folder / "images.parquet", png_rows(material.job), DIGITS)
    for name, (network, spec) in (("target", material.target), ("source", material.source)):
        safetensors.torch.save_file(network.state_dict(), folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(spec.to_dict()))


def time_job(folder: Path, setting: str, others: int, limit: int, *, quick: bool) -> float:
    """Seconds that one job takes next to `others` processes that only compute."""
    words = ["clone", "target.safetensors", "source.safetensors", "images.parquet", "--epochs", "3" if quick else "60"]
    words += ["-c", "7", "-c", "8", "-c", "9", "--set", "batch_size=64", "--json"]
    command = [sys.executable, "-P", "-m", "app.cli", *words]
    with busy_processes(others, limit + 60):
        began = time.monotonic()
        try:
            subprocess.run(
                command, cwd=folder, env=environment(setting), check=True, stdout=subprocess.DEVNULL, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return float(limit)
        return time.monotonic() - began


def environment(setting: str) -> dict[str, str]:
    """Environment variables of a job's process."""
    given = {name: value for name, value in os.environ.items() if name not in OURS}
    whole = {processors.THREADS: str(os.cpu_count() or 1)}
    return {
        "torch's own": {**given, **whole, **SPINNING},
        "passive": {**given, **whole, **processors.WAITING},
        "one thread": {**given, processors.THREADS: "1"},
        "the service's": given,
    }[setting]


@contextmanager
def busy_processes(count: int, seconds: int) -> Iterator[None]:
    """Run processes that keep one processor busy each; they end with the block, or after `seconds`."""
    code = SPIN.format(seconds=seconds)
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def print_table(seconds: dict[tuple[str, int], list[float]], other_count: int, limit: int) -> None:
    """Print the median times and the slowdown next to other processes."""
    table = Table(title=f"The demo's job, median seconds, {os.cpu_count()} processors; {limit} s: stopped at the limit")
    for column in ("threads", "alone", f"with {other_count} others", "ratio"):
        table.add_column(column, justify="left" if column == "threads" else "right")
    found = {}
    for setting in SETTINGS:
        alone, busy = (median(seconds[setting, others]) for others in (0, other_count))
        found[setting] = {"alone": round(alone, 1), "busy": round(busy, 1), "ratio": round(busy / alone, 2)}
        table.add_row(setting, *(str(value) for value in found[setting].values()))
    console.print(table)
    console.print_json(data={"busy": found, "beside": other_count, "processors": os.cpu_count()}, indent=None)


def compare_threads(seconds: int) -> None:
    """Print the best time of one forward and backward pass with one and two threads, for small to large networks."""
    from pnc_core.analysis.evaluation import multiply_accumulates
    from pnc_core.config import NetworkSpec
    from pnc_core.graph.architectures import build_network

    table = Table(title="Best milliseconds of one batch, forward and backward")
    for column in ("network", "batch", "million MACs", "1 thread", "2 threads", "gain"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for architecture, size, width in (("cnn", 8, 8), ("cnn", 8, 32), ("cnn", 16, 32), ("resnet20", 32, 16)):
        shape: dict[str, Any] = {"input_size": (3, size, size), "mean": (0.5,) * 3, "std": (0.5,) * 3}
        spec = NetworkSpec(architecture=architecture, classes=tuple("01234"), options={"width": width}, **shape)
        network = build_network(spec)
        for batch in (8, 64):
            images = torch.randn(batch, *spec.input_size)
            best = _best_of_both(network, images, seconds)
            work = multiply_accumulates(network, spec) * batch
            cells = (f"{work / 1e6:.1f}", f"{1000 * best[1]:.2f}", f"{1000 * best[2]:.2f}", f"{best[1] / best[2]:.2f}")
            table.add_row(f"{architecture} {width}, {size} x {size}", str(batch), *cells)
    console.print(table)


def _best_of_both(network: torch.nn.Module, images: torch.Tensor, seconds: int) -> dict[int, float]:
    """Best seconds by number of threads. Runs alternate; other load hardly changes the best of many short runs."""
    best = {1: float("inf"), 2: float("inf")}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for threads in best:
            torch.set_num_threads(threads)
            for _ in range(CALLS):
                began = time.perf_counter()
                network(images).square().mean().backward()
                best[threads] = min(best[threads], time.perf_counter() - began)
    return best


if __name__ == "__main__":
    typer.run(main)
