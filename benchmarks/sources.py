"""Modules of five sources with ten classes each, attached one after another to one target, compared with baselines.

    python -m benchmarks.sources --data-root DATA --seeds 0,1,2 --out results

CIFAR-100: the target has 50 classes. Every module is cloned against the target alone, from images of the target's
and the module's classes. Baselines continue from their previous step, with images of all classes seen so far.
Every step reports the accuracy over all classes seen so far, the mean over classes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor

from app.plots import cost_curve, save
from benchmarks.comparison.baselines import Memo, learn_lwf, learn_memo
from benchmarks.comparison.cloning import config_of
from benchmarks.comparison.data import Split, load
from benchmarks.comparison.task import Task
from benchmarks.comparison.zoo import Network, train_or_load, zoo_recipe
from benchmarks.reports.machine import resolve
from benchmarks.reports.rows import read_rows_to_resume, write_rows
from benchmarks.reports.tables import markdown
from pnc_core.analysis.evaluation import predict
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import PositionInfo, Traced, trace
from pnc_core.images import EVALUATION_BATCH, batches, preprocess
from pnc_core.method.balance import CommonHead, ModuleLogits, Rows, fit_balance, rebalance
from pnc_core.method.clone import clone
from pnc_core.module.composed import Composed, attach
from pnc_core.module.head import pool_taps

SOURCES, CLASSES = 5, 10


@dataclass(frozen=True)
class Step:
    """Result of one method after `sources` sources; shares are 0..1."""

    seed: int
    method: str
    sources: int
    average: float
    """Mean over all classes seen so far of the accuracy of each class."""
    old: float
    """Accuracy on the target's own classes."""
    new: float
    """Accuracy on the added classes."""
    locality: float
    """Share of the images of the target's classes with the same prediction as by the target alone."""
    seconds: float
    """Processor time of learning this step."""


Learn = Callable[[int, tuple[str, ...], tuple[str, ...]], Callable[[Tensor], Tensor]]
"""(step, known classes, classes to learn) -> (uint8 images -> logits of known and learned classes)."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for sources.json, sources.md, the plot and the trained networks.")],
    data_root: Annotated[Path, typer.Option(help="Folder that torchvision reads the images from.")],
    seeds: Annotated[str, typer.Option(help="Seeds, a list; each divides the classes differently.")] = "0,1,2",
    fraction: Annotated[float, typer.Option(help="Share of the images that methods may learn from.")] = 0.3,
    methods: Annotated[str, typer.Option(help="Methods to measure; all if empty.")] = "",
    precision: Annotated[str, typer.Option(help="bfloat16, float32, or auto: the faster one.")] = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep the steps in sources.json, measure the rest.")] = False,
) -> None:
    """Measure every method at every step."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    console, file = Console(), out / "sources.json"
    _, precision = resolve("cpu", precision, out, console)
    rows = [Step(**row) for row in read_rows_to_resume(file, resume)]
    for seed in map(int, seeds.split(",")):
        split = load("cifar100", data_root, seed)
        for method in methods.split(",") if methods else METHODS:
            if any((row.seed, row.method) == (seed, method) for row in rows):
                continue
            for row in measure(split, method, (fraction, precision), out / "nets"):
                console.print(
                    f"{row.seed} {row.method:<18} {row.sources} sources: average {row.average:.4f}  "
                    f"old {row.old:.4f}  new {row.new:.4f}  locality {row.locality:.4f}  {row.seconds:.0f} s"
                )
                rows.append(row)
            write_rows(file, rows)
    console.print(f"report: {report(rows, out)}")


def measure(split: Split, method: str, how: tuple[float, str], nets: Path) -> Iterator[Step]:
    """Measure one method at every step; `how` is the share of the images and the precision."""
    fraction, precision = how
    recipe = zoo_recipe(split, "cpu", precision)
    target = train_or_load(split, split.target, nets, recipe)
    parts = [split.source[i * CLASSES : (i + 1) * CLASSES] for i in range(SOURCES)]
    sources = [train_or_load(split, part, nets, recipe) for part in parts]
    # Draw the training images once, so that all methods use the same images of a class at every step.
    drawn = replace(split, train=replace(split, cloned=split.source).sample(fraction))
    task = Task(drawn, target, sources[0], 1.0, precision=precision, balance_sides=False)
    learn = METHODS[method](task, sources)
    known = split.target
    for number, part in enumerate(parts):
        started = time.process_time()
        answer = learn(number, known, part)
        seconds = time.process_time() - started
        known = (*known, *part)
        yield _judge(split, target, known, answer, (method, number + 1, seconds))


def _judge(
    split: Split,
    target: Network,
    known: tuple[str, ...],
    answer: Callable[[Tensor], Tensor],
    told: tuple[str, int, float],
) -> Step:
    test = split.test.only(known)
    found, alone = answer(test.images).argmax(1), predict(*target, test.images).argmax(1)
    is_old = test.labels < len(split.target)
    right = (found == test.labels).double()
    per_class = [float(right[test.labels == label].mean()) for label in range(len(known))]
    method, sources, seconds = told
    return Step(
        seed=split.seed,
        method=method,
        sources=sources,
        average=sum(per_class) / len(per_class),
        old=float(right[is_old].mean()),
        new=float(right[~is_old].mean()),
        locality=float((found == alone)[is_old].double().mean()),
        seconds=seconds,
    )


def _task_of_step(task: Task, network: Network, source: Network, known: tuple[str, ...], part: tuple[str, ...]) -> Task:
    """The task of one step: `network` has the classes `known`, and `part` are the classes to learn."""
    split = replace(task.split, target=known, source=part, cloned=part)
    return replace(task, split=split, target=network, source=source)


def _modules(task: Task, sources: list[Network], *, head: CommonHead) -> Learn:
    target, base = task.target, task.split.target
    composed: Composed | None = None

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        nonlocal composed
        here = _task_of_step(task, target, sources[number], base, part)
        bundle = clone(target, sources[number], here.images, config_of(here, "pnc_fast"))
        composed = attach(composed or target[0], bundle)
        images = _task_of_step(task, target, sources[number], known, part).images
        augmentation = task.split.suite.augment if head == "joint" else "none"
        balanced = rebalance(composed, images, head=head, augmentation=augmentation)  # type: ignore[arg-type]
        return lambda images: predict(balanced, target[1], images)

    return learn


def _ensemble(task: Task, sources: list[Network]) -> Learn:
    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        networks = [task.target, *sources[: number + 1]]
        return lambda images: torch.cat([predict(*network, images).softmax(1) for network in networks], 1)

    return learn


def _balanced(task: Task, sources: list[Network], *, head: CommonHead) -> Learn:
    """An ensemble of the whole target and sources, balanced on the same images as modules are.

    Head `affine` fits a scale and an offset for each source's logits. Head `joint` also corrects all logits, from the
    target's taps and the last tap of each source.
    """
    networks = [trace(*network) for network in (task.target, *sources)]
    taps = [traced.taps[-1 if place else 0 :] if head == "joint" else () for place, traced in enumerate(networks)]

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        images = _task_of_step(task, task.target, sources[number], known, part).images
        beside = list(zip(networks, taps, strict=True))[: number + 2]
        views = [images.images, *([task.view(images.images, task.generator("balance"))] if head == "joint" else [])]
        sides = [_logits_and_taps(*network, torch.cat(views)) for network in beside]
        balance, common = fit_balance(_side_by_side, _rows(sides, images.labels.repeat(len(views))))

        def answer(pixels: Tensor) -> Tensor:
            rows = _rows([_logits_and_taps(*network, pixels) for network in beside], images.labels)
            pairs = zip(rows.answers, balance, strict=True)
            joined = _side_by_side(rows.old, [(None, own * scale + offset) for (_, own), (scale, offset) in pairs])
            if common is None or rows.features is None:
                return joined
            parts = joined.float().split((len(task.split.target), joined.shape[1] - len(task.split.target)), dim=1)
            return torch.cat(common(*parts, rows.features), 1)

        return answer

    return learn


def _logits_and_taps(traced: Traced, taps: tuple[PositionInfo, ...], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and pooled taps of uint8 images."""
    reader, axes = Reader(traced, [p.name for p in taps]), [p.axis for p in taps]
    logits, features = [], []
    with torch.no_grad():
        for index in batches(len(pixels), EVALUATION_BATCH):
            output, seen = reader(preprocess(pixels[index], traced.spec))
            logits.append(output)
            features.append(pool_taps([seen[p.name] for p in taps], axes, 1) if taps else output[:, :0])
    return torch.cat(logits), torch.cat(features)


def _rows(sides: list[tuple[Tensor, Tensor]], labels: Tensor) -> Rows:
    old, *own = (logits.double() for logits, _ in sides)
    features = torch.cat([features for _, features in sides], 1)
    return Rows(old, [(None, logits) for logits in own], labels, features if features.shape[1] else None)


def _side_by_side(old: Tensor, answers: list[ModuleLogits]) -> Tensor:
    return torch.cat([old, *(own for _, own in answers)], 1)


def _lwf(task: Task, sources: list[Network]) -> Learn:
    state = task.target

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        nonlocal state
        here = _task_of_step(task, state, sources[number], known, part)
        network = state = learn_lwf(here), here.spec
        return lambda images: predict(*network, images)

    return learn


def _memo(task: Task, sources: list[Network]) -> Learn:
    network = Memo(task)

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        spec = replace(task.target[1], classes=known)
        here = _task_of_step(task, (network, spec), sources[number], known, part)
        learn_memo(here, network)
        return lambda images: predict(network, here.spec, images)

    return learn


METHODS: dict[str, Callable[[Task, list[Network]], Learn]] = {
    "modules": partial(_modules, head="affine"),
    "modules_joint": partial(_modules, head="joint"),
    "ensemble_softmax": _ensemble,
    "ensemble_balanced": partial(_balanced, head="affine"),
    "ensemble_joint": partial(_balanced, head="joint"),
    "lwf": _lwf,
    "memo": _memo,
}


def report(rows: list[Step], out: Path) -> Path:
    """Write `sources.md` and a curve of the average over the number of sources."""
    order = {method: place for place, method in enumerate(METHODS)}
    rows = sorted(rows, key=lambda row: (order[row.method], row.sources, row.seed))
    records = [{**asdict(row), "percent": 100 * row.average, "seconds": round(row.seconds, 1)} for row in rows]
    figure = cost_curve(
        records,
        x="sources",
        y="percent",
        series="method",
        x_label="sources attached",
        y_label="accuracy over all classes seen (%)",
    )
    save(figure, out / "sources")
    path = out / "sources.md"
    path.write_text(
        markdown(records, ("method", "sources"), ("average", "old", "new", "locality"), ("seconds",)) + "\n"
    )
    return path


if __name__ == "__main__":
    typer.run(main)
