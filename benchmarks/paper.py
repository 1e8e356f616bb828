"""The paper's comparison: our method and all baselines on the same networks and images.

    python -m benchmarks.paper --suite cifar10 --data-root DATA --seeds 0,1,2 --fraction 0.3 --out results

Each result is written to `results.json` at once, so that an interrupted run continues with `--resume`.
`report.md` and the plots are made from that file alone.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.comparison.baselines import BASELINES
from benchmarks.comparison.cloning import VARIANTS, clone_and_attach
from benchmarks.comparison.data import SUITES, Split, load
from benchmarks.comparison.task import MethodOutput, Record, Task, run_method
from benchmarks.comparison.zoo import Network, train_or_load, zoo_recipe
from benchmarks.reports.machine import resolve
from benchmarks.reports.rows import read_rows_to_resume, write_rows
from benchmarks.reports.tables import write_report
from pnc_core.files import written_whole

METHODS: dict[str, Callable[[Task], MethodOutput]] = {
    **BASELINES,
    **{name: partial(clone_and_attach, method=name) for name in VARIANTS},
}


def main(
    suite: Annotated[str, typer.Option(help=f"One of {', '.join(SUITES)}.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, report.md, plots and the trained networks.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder that torchvision reads the images from.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, a list; each divides the classes differently.")] = "0,1,2",
    fraction: Annotated[str, typer.Option(help="Shares of the images that methods may learn from, a list.")] = "0.3",
    methods: Annotated[str, typer.Option(help="Methods to measure; all by default.")] = ",".join(METHODS),
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "auto",
    precision: Annotated[str, typer.Option(help="bfloat16, float32, or auto: the faster one.")] = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep the records in results.json, measure the rest.")] = False,
) -> None:
    """Measure methods on a suite and write a report."""
    torch.set_num_threads(threads)
    chosen, fractions = methods.split(","), [float(share) for share in fraction.split(",")]
    unknown = [name for name in chosen if name not in METHODS]
    if suite not in SUITES or unknown:
        raise typer.BadParameter(f"expected suites {list(SUITES)} and methods {list(METHODS)}, got {suite}, {unknown}")
    file = out / "results.json"
    records = [Record(**row) for row in read_rows_to_resume(file, resume)]
    out.mkdir(parents=True, exist_ok=True)
    done = {(r.suite, r.split, r.method, r.fraction) for r in records}
    todo = [(int(seed), share, name) for seed in seeds.split(",") for share in fractions for name in chosen]
    todo = [row for row in todo if (suite, row[0], row[2], row[1]) not in done]
    console = Console()
    device, precision = resolve(device, precision, out, console)
    with _progress(console) as progress:
        bar = progress.add_task("starting", total=len(todo))
        for record in measure(suite, todo, data_root, out / "nets", (device, precision), (progress, bar)):
            records.append(record)
            write_rows(file, records)
            console.print(
                f"{record.suite} {record.split} {record.fraction:g} {record.method:<20} average {record.avg:.4f}  "
                f"old {record.old:.4f}  new {record.new:.4f}  locality {record.locality:.4f}  {record.seconds:.0f} s"
            )
    console.print(f"report: {write_report(records, out)}")


def measure(
    suite: str,
    todo: list[tuple[int, float, str]],
    data_root: Path | None,
    nets: Path,
    machine: tuple[str, str],
    display: tuple[Progress, TaskID],
) -> Iterator[Record]:
    """Measure every (split, fraction, method) in `todo`; networks are trained when a split first needs them."""
    progress, bar = display
    networks: dict[int, tuple[Split, Network, Network]] = {}
    for seed, share, name in todo:
        progress.update(bar, description=f"{suite} {seed}: {name}, {share:.0%} of the images")
        if seed not in networks:
            networks = {seed: _trained(load(suite, data_root, seed), nets, machine, progress)}
            _write_classes(nets.with_name("splits.json"), networks[seed][0])
        split, target, source = networks[seed]
        task = Task(split, target, source, share, device=machine[0], precision=machine[1])
        inner = progress.add_task(name, total=None)
        report = partial(_show_message, progress, inner, name)
        task = replace(task, step=partial(progress.advance, inner), report=report)
        yield run_method(task, name, METHODS[name])
        progress.remove_task(inner)
        progress.advance(bar)


def _show_message(progress: Progress, bar: TaskID, name: str, message: str) -> None:
    progress.update(bar, description=f"{name}: {message}")


def _trained(split: Split, nets: Path, machine: tuple[str, str], progress: Progress) -> tuple[Split, Network, Network]:
    recipe = zoo_recipe(split, *machine)
    found = []
    for title, classes in (("target", split.target), ("source", split.source)):
        images = len(split.train.only(classes)) * recipe.epochs
        bar = progress.add_task(f"training the {title}", total=images)
        found.append(train_or_load(split, classes, nets, recipe, step=partial(progress.advance, bar)))
        progress.remove_task(bar)
    return split, found[0], found[1]


def _write_classes(file: Path, split: Split) -> None:
    """Add a split's target, source and cloned classes to `splits.json`; the results name a split by its seed only."""
    known = json.loads(file.read_text()) if file.is_file() else {}
    sides = {"target": split.target, "source": split.source, "cloned": split.cloned}
    with written_whole(file) as half:
        half.write_text(json.dumps({**known, f"{split.suite.name}-{split.seed}": sides}, indent=1) + "\n")


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True)


if __name__ == "__main__":
    logging.getLogger("torch").setLevel(logging.ERROR)
    typer.run(main)
