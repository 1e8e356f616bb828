"""The paper's claims, measured: our method beside every honest alternative, on the same nets and images.

    python -m benchmarks.paper --suite cifar10 --data-root DATA --seeds 0,1,2 --fraction 0.3 --out results

Everything that is measured goes to `results.json` as soon as it is known, so that a run can be
stopped and taken up again with `--resume`. `report.md` and the plots are made from that file alone.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.arena import Answer, Arena, Record, compete
from benchmarks.cloning import VARIANTS, cloned
from benchmarks.data import SUITES, Split, load
from benchmarks.machine import settled
from benchmarks.report import write_report
from benchmarks.rivals import RIVALS
from benchmarks.zoo import Network, train_or_load, zoo_recipe
from pnc_core.files import written_whole

METHODS: dict[str, Callable[[Arena], Answer]] = {**RIVALS, **{name: partial(cloned, method=name) for name in VARIANTS}}


def main(
    suite: Annotated[str, typer.Option(help=f"One of {', '.join(SUITES)}.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, report.md, plots and the trained networks.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder that torchvision reads the images from.")] = None,
    seeds: Annotated[str, typer.Option(help="Each divides the classes anew.")] = "0,1,2",
    fraction: Annotated[str, typer.Option(help="Shares of the images that may be learnt from.")] = "0.3",
    methods: Annotated[str, typer.Option(help="Which methods; all by default.")] = ",".join(METHODS),
    device: Annotated[str, typer.Option(help="auto: a GPU that torch can use, else the processor.")] = "auto",
    precision: Annotated[str, typer.Option(help="bfloat16, float32, or auto: what is quicker.")] = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep what results.json has and measure the rest.")] = False,
) -> None:
    """Measure methods on a suite and write a report."""
    torch.set_num_threads(threads)
    chosen, fractions = methods.split(","), [float(share) for share in fraction.split(",")]
    unknown = [name for name in chosen if name not in METHODS]
    if suite not in SUITES or unknown:
        raise typer.BadParameter(f"expected suites {list(SUITES)} and methods {list(METHODS)}, got {suite}, {unknown}")
    file = out / "results.json"
    records = [Record(**row) for row in earlier(file, resume)]
    out.mkdir(parents=True, exist_ok=True)
    done = {(r.suite, r.split, r.method, r.fraction) for r in records}
    todo = [(int(seed), share, name) for seed in seeds.split(",") for share in fractions for name in chosen]
    todo = [row for row in todo if (suite, row[0], row[2], row[1]) not in done]
    console = Console()
    device, precision = settled(device, precision, out, console)
    with _progress(console) as progress:
        task = progress.add_task("starting", total=len(todo))
        for record in measure(suite, todo, data_root, out / "nets", (device, precision), (progress, task)):
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
    bar: tuple[Progress, TaskID],
) -> Iterator[Record]:
    """Every (split, fraction, method) in turn; networks are trained when a split first needs them."""
    progress, task = bar
    networks: dict[int, tuple[Split, Network, Network]] = {}
    for seed, share, name in todo:
        progress.update(task, description=f"{suite} {seed}: {name}, {share:.0%} of the images")
        if seed not in networks:
            networks = {seed: _trained(load(suite, data_root, seed), nets, machine, progress)}
            _note_classes(nets.with_name("splits.json"), networks[seed][0])
        split, target, source = networks[seed]
        arena = Arena(split, target, source, share, device=machine[0], precision=machine[1])
        inner = progress.add_task(name, total=None)
        said = partial(_say, progress, inner, name)
        arena = replace(arena, step=partial(progress.advance, inner), said=said)
        yield compete(arena, name, METHODS[name])
        progress.remove_task(inner)
        progress.advance(task)


def _say(progress: Progress, task: TaskID, name: str, message: str) -> None:
    progress.update(task, description=f"{name}: {message}")


def _trained(split: Split, nets: Path, machine: tuple[str, str], progress: Progress) -> tuple[Split, Network, Network]:
    recipe = zoo_recipe(split, *machine)
    found = []
    for title, classes in (("target", split.target), ("source", split.source)):
        images = len(split.train.only(classes)) * recipe.epochs
        task = progress.add_task(f"training the {title}", total=images)
        found.append(train_or_load(split, classes, nets, recipe, step=partial(progress.advance, task)))
        progress.remove_task(task)
    return split, found[0], found[1]


def _note_classes(file: Path, split: Split) -> None:
    """Keep which classes a split gives to whom, beside the results that name it by its number only."""
    known = json.loads(file.read_text()) if file.is_file() else {}
    sides = {"target": split.target, "source": split.source, "cloned": split.cloned}
    with written_whole(file) as half:
        half.write_text(json.dumps({**known, f"{split.suite.name}-{split.seed}": sides}, indent=1) + "\n")


def earlier(file: Path, resume: bool) -> list[dict[str, Any]]:
    """What was measured before, for who resumes.

    Raises:
        typer.BadParameter: there is something, and it would be lost.
    """
    if file.is_file() and not resume:
        raise typer.BadParameter(f"--out: expected a folder without {file.name}, got {file}; add --resume or move it")
    return read_rows(file) if resume else []


def read_rows(file: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    return rows


def write_rows(file: Path, rows: Sequence[Any]) -> None:
    """All records, in one step: a run that is stopped leaves a whole file."""
    with written_whole(file) as half:
        half.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True)


if __name__ == "__main__":
    logging.getLogger("torch").setLevel(logging.ERROR)
    typer.run(main)
