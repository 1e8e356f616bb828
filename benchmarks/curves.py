"""Accuracy over the number of images of a class: a module, its alternatives without learning, and trained baselines.

    python -m benchmarks.curves --suite cifar10 --data-root DATA --seeds 0,1,2 --out results
    python -m benchmarks.curves --suite cifar10 --data-root DATA --seeds 1000,1001 --tune --out results

Every draw takes the same number of images of each class. `--tune` measures LwF and fine-tuning at each count for every
setting of a grid, on development splits; without it the best settings in `tuned.json` are used. Results are written to
`curves.json` at once, so that an interrupted run continues with `--resume`. Each row of a module also holds its job's
own figure and interval, for the comparison with the test images.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor

from app.plots import cost_curve, save
from benchmarks.comparison.baselines import direct_ensemble, finetune, linear_probe, lwf, target_only
from benchmarks.comparison.data import DEVELOPMENT_SEED, SUITES, Split, load
from benchmarks.comparison.task import MethodOutput, Task, numbers
from benchmarks.comparison.zoo import networks_of
from benchmarks.reports.rows import read_rows_to_resume, write_rows
from benchmarks.reports.tables import markdown
from pnc_core.analysis.evaluation import judge, multiply_accumulates, predict
from pnc_core.config import CloneConfig
from pnc_core.files import written_whole
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.method.heads.alternatives import cross_fitted_probe, probe_columns, probe_rows
from pnc_core.method.heads.fit import head_logits
from pnc_core.method.heads.folds import folds_of
from pnc_core.method.heads.inputs import head_inputs, shown_by, tap_widths
from pnc_core.method.insert import whole_source
from pnc_core.method.job import prepare
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach

COUNTS = "1,2,5,10,25,100,600,0"
"""Images of a class; 0: all."""
GRID = tuple(product((0.003, 0.01, 0.03, 0.1, 0.2), (5e-4, 2e-3), (0.1, 0.3, 1.0, 3.0)))
"""Learning rate, weight decay and weight of the distillation that `--tune` tries. Fine-tuning has no distillation."""
TRAINED = {"finetune": finetune, "lwf": lwf}
FEW = 10
"""With fewer images of a class the probe is chosen by cross-validation: a held-out quarter would be too small."""


def probe(task: Task) -> MethodOutput:
    """A linear classifier on the target's taps."""
    if len(task.images) >= FEW * len(task.images.classes):
        return linear_probe(task)
    traced = trace(*task.target), trace(*task.source)
    job = prepare(*traced, task.images, _config(task, "fast"), lambda progress: None, lambda: False)
    whole = whole_source(job)
    assert whole is not None  # both networks of a suite take the same images
    rows = head_inputs(job, whole, job.every, [1], 2)[0]
    shown, folds = shown_by(job, len(job.every), 2), folds_of(job.every, job.generator("folds"))
    seen = tap_widths(job, whole, 1)[0]
    fitted = cross_fitted_probe(rows, seen, shown, folds)
    head = fitted.head

    def logits() -> Tensor:
        test = head_inputs(job, whole, task.test_images, [1], 0)[0]
        read = next(c for c in probe_columns(seen) if len(c) == head.weight.shape[1])
        return head_logits(head, probe_rows(test, read))

    size = numbers(head)
    return MethodOutput(logits, size, multiply_accumulates(*task.target) + size, len(task.images))


ALTERNATIVES: dict[str, Callable[[Task], MethodOutput]] = {
    "target_only": target_only,
    "ensemble": partial(direct_ensemble, softmax=True),
    "probe": probe,
}
MODULES = {"module_fast": "fast", "module_joint": "joint"}
METHODS = (*MODULES, *ALTERNATIVES, *TRAINED)


@dataclass(frozen=True)
class Row:
    """Result of one method on one draw; shares are 0..1, of test images unless said otherwise."""

    suite: str
    split: int
    count: int
    """Images of a class; 0: all."""
    draw: int
    method: str
    old: float
    new: float
    average: float
    size_ratio: float
    """Numbers stored in addition to the target's, divided by the source's."""
    seconds: float
    """Processor time of learning."""
    setting: str = ""
    """Learning rate, weight decay and distillation of a trained baseline."""
    judged: float | None = None
    """A module's own figure: its average accuracy by its job."""
    low: float | None = None
    """Lower end of the 90 % interval of `judged`."""
    high: float | None = None
    """Upper end."""

    @property
    def key(self) -> tuple[str, int, int, int, str, str]:
        """Rows with equal keys measure the same."""
        return self.suite, self.split, self.count, self.draw, self.method, self.setting


def main(
    suite: Annotated[str, typer.Option(help=f"One of {', '.join(SUITES)}.")],
    out: Annotated[Path, typer.Option(help="Folder for curves.json, curves.md, the plot and the trained networks.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder with the images of torchvision and other suites.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, a list; each divides the classes differently.")] = "0,1,2",
    counts: Annotated[str, typer.Option(help="Images of a class, a list; 0: all.")] = COUNTS,
    draws: Annotated[int, typer.Option(help="Draws of the images of each count.")] = 5,
    methods: Annotated[str, typer.Option(help="Methods to measure, a list.")] = ",".join(METHODS),
    tune: Annotated[bool, typer.Option("--tune", help="Choose the settings of trained baselines.")] = False,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep the rows in curves.json, measure the rest.")] = False,
) -> None:
    """Measure every method at every count."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    splits, chosen = [int(seed) for seed in seeds.split(",")], methods.split(",")
    if suite not in SUITES or set(chosen) - set(METHODS):
        raise typer.BadParameter(f"expected suites {list(SUITES)} and methods {list(METHODS)}, got {suite}, {chosen}")
    if tune and min(splits) < DEVELOPMENT_SEED:
        raise typer.BadParameter(f"--tune: expected development splits, from {DEVELOPMENT_SEED}, got {seeds}")
    file, console = out / ("tuning.json" if tune else "curves.json"), Console()
    rows = [Row(**row) for row in read_rows_to_resume(file, resume)]
    done = {row.key for row in rows}
    tuned = _read_tuned(out, suite)
    for seed in splits:
        split = load(suite, data_root, seed)
        networks = networks_of(split, out / "nets", data_root)
        for count, draw in product(map(int, counts.split(",")), range(draws)):
            task = Task(replace(split, train=drawn(split, count, draw)), *networks, 1.0, seed=draw, precision="float32")
            for method, setting in _todo(chosen, tuned.get(str(count)), tune=tune):
                blank = Row(suite, seed, count, draw, method, 0, 0, 0, 0, 0, _text(setting))
                if blank.key in done:
                    continue
                rows.append(measure(replace(task, tuned=setting), blank))
                write_rows(file, rows)
                row = rows[-1]
                what = f"{seed} {count:>4} {draw} {method:<13} {row.setting:<16}"
                console.print(f"{what} {100 * row.average:.1f} {row.seconds:.0f} s")
    if tune:
        _write_tuned(rows, out, suite)
    else:
        console.print(f"report: {report(rows, out)}")


def drawn(split: Split, count: int, draw: int) -> ImageSet:
    """`count` images of each old and cloned class, or all for 0."""
    images = split.train.only((*split.target, *split.cloned))
    generator = torch.Generator().manual_seed(1000 * split.seed + draw)
    members = (torch.nonzero(images.labels == label).flatten() for label in range(len(images.classes)))
    rows = [row[torch.randperm(len(row), generator=generator)][: count or len(row)] for row in members]
    return images.take(torch.cat(rows).sort().values)


def measure(task: Task, row: Row) -> Row:
    """Fill in a row: learn, and judge on the test images."""
    started = time.process_time()
    bundle = _module(task, MODULES[row.method]) if row.method in MODULES else None
    output = _output(task, bundle) if bundle else {**ALTERNATIVES, **TRAINED}[row.method](task)
    seconds = time.process_time() - started
    found = judge(output.logits(), task.target_logits, task.test_images.labels)
    source = numbers(task.source[0])
    verdict = bundle.manifest.verdict if bundle else None
    own = verdict.figures["module"] if verdict else None
    return replace(
        row,
        old=found.old,
        new=found.new,
        average=found.average,
        size_ratio=output.numbers / source,
        seconds=seconds,
        judged=own.average if own else None,
        low=own.low if own else None,
        high=own.high if own else None,
    )


def _module(task: Task, preset: str) -> Bundle:
    return clone(task.target, task.source, task.images, _config(task, preset))


def _config(task: Task, preset: str) -> CloneConfig:
    """Default settings; a worse module is measured, too."""
    return CloneConfig(
        classes=task.split.cloned,
        preset=preset,  # type: ignore[arg-type]
        augment=task.split.suite.augment,  # type: ignore[arg-type]
        seed=task.seed,
        keep_anyway=True,
    )


def _output(task: Task, bundle: Bundle) -> MethodOutput:
    composed, sizes = attach(task.target[0], bundle), bundle.manifest.sizes
    macs = multiply_accumulates(composed, task.target[1])
    size = sizes.module + sizes.adapter + sizes.head
    return MethodOutput(
        lambda: predict(composed, task.target[1], task.test_images.images), size, macs, len(task.images)
    )


Setting = tuple[float, float, float]


def _todo(methods: list[str], tuned: dict[str, Setting] | None, *, tune: bool) -> Iterator[tuple[str, Setting | None]]:
    for method in methods:
        if tune and method in TRAINED:
            yield from ((method, setting) for setting in GRID if method == "lwf" or setting[2] == GRID[0][2])
        elif not tune:
            yield method, (tuned or {}).get(method) if method in TRAINED else None


def _text(setting: Setting | None) -> str:
    return " ".join(f"{value:g}" for value in setting) if setting else ""


def _read_tuned(out: Path, suite: str) -> dict[str, dict[str, Setting]]:
    """Best settings by count and method, as `--tune` has written them."""
    file = out / "tuned.json"
    found: dict[str, dict[str, Setting]] = json.loads(file.read_text()).get(suite, {}) if file.is_file() else {}
    return found


def _write_tuned(rows: list[Row], out: Path, suite: str) -> None:
    """Write the setting of the best mean accuracy for each count and method."""
    means: dict[tuple[int, str], dict[str, float]] = {}
    for count, method in {(row.count, row.method) for row in rows if row.suite == suite}:
        mine = [row for row in rows if (row.suite, row.count, row.method) == (suite, count, method)]
        settings = {row.setting for row in mine}
        means[count, method] = {s: fmean(row.average for row in mine if row.setting == s) for s in settings}
    file = out / "tuned.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    best: dict[str, dict[str, list[float]]] = {}
    for (count, method), found in sorted(means.items()):
        setting = max(found, key=lambda text: found[text])
        best.setdefault(str(count), {})[method] = [float(part) for part in setting.split()]
    with written_whole(file) as half:
        half.write_text(json.dumps({**known, suite: best}, indent=1) + "\n")


def report(rows: list[Row], out: Path) -> Path:
    """Write `curves.md` and the plot."""
    order = {method: place for place, method in enumerate(METHODS)}
    rows = sorted(rows, key=lambda row: (row.suite, row.count or 10**9, order[row.method], row.split, row.draw))
    records = [{**asdict(row), "percent": 100 * row.average, "seconds": round(row.seconds, 1)} for row in rows]
    shown = [record for record in records if record["count"]]
    if shown:
        figure = cost_curve(
            shown,
            x="count",
            y="percent",
            series="method",
            x_label="images of a class",
            y_label="average accuracy (%)",
        )
        save(figure, out / "curves")
    text = markdown(records, ("suite", "count", "method"), ("average", "old", "new", "size_ratio"), ("seconds",))
    path = out / "curves.md"
    path.write_text(f"{text}\n\n{_own_figures(rows)}\n")
    return path


def _own_figures(rows: list[Row]) -> str:
    """How close the modules' own figures are to the test images', by count."""
    lines = [
        "| count | modules | own figure minus test, points | test within the interval |",
        "| --- | --- | --- | --- |",
    ]
    for count in dict.fromkeys(row.count for row in rows):
        mine = [row for row in rows if row.count == count and row.judged is not None]
        if mine:
            gap = fmean(100 * ((row.judged or 0) - row.average) for row in mine)
            inside = fmean((row.low or 0) <= row.average <= (row.high or 0) for row in mine)
            lines.append(f"| {count or 'all'} | {len(mine)} | {gap:+.1f} | {inside:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
