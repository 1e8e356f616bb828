"""Five sources of ten classes each, attached one after another to one target, beside rivals at the same steps.

    python -m benchmarks.sources --data-root DATA --seeds 0,1,2 --out results

CIFAR-100: the target knows 50 classes. Every module is cloned against the target alone, from images of the
target's classes and its own; the rivals go on from what they were, with images of all classes
seen so far. What is judged at a step are all classes seen so far, every class alike.
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
from benchmarks.arena import Arena
from benchmarks.cloning import config_of
from benchmarks.data import Split, load
from benchmarks.machine import settled
from benchmarks.paper import earlier, write_rows
from benchmarks.report import markdown
from benchmarks.rivals import Memo, learn_lwf, learn_memo
from benchmarks.zoo import Network, train_or_load, zoo_recipe
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
    """What one method knows once so many sources have been attached; shares are 0..1."""

    seed: int
    method: str
    sources: int
    average: float
    """Accuracy over all classes seen so far, every class alike."""
    old: float
    """Of the target's own classes."""
    new: float
    """Of the classes that came."""
    locality: float
    """Images of the target's own classes that are answered as the target alone answers them."""
    seconds: float
    """Learning of this step, in processor time."""


Learn = Callable[[int, tuple[str, ...], tuple[str, ...]], Callable[[Tensor], Tensor]]
"""(step, classes known, classes to learn) -> (uint8 images -> logits of all of them)."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for sources.json, sources.md, the plot and the trained networks.")],
    data_root: Annotated[Path, typer.Option(help="Folder that torchvision reads the images from.")],
    seeds: Annotated[str, typer.Option(help="Each divides the classes anew.")] = "0,1,2",
    fraction: Annotated[float, typer.Option(help="Share of the images that may be learnt from.")] = 0.3,
    methods: Annotated[str, typer.Option(help="Which methods; all if empty.")] = "",
    precision: Annotated[str, typer.Option(help="bfloat16, float32, or auto: what is quicker.")] = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep what sources.json has and measure the rest.")] = False,
) -> None:
    """Measure every method at every step."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    console, file = Console(), out / "sources.json"
    _, precision = settled("cpu", precision, out, console)
    rows = [Step(**row) for row in earlier(file, resume)]
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
    """One method at every step, by share of the images and precision."""
    fraction, precision = how
    recipe = zoo_recipe(split, "cpu", precision)
    target = train_or_load(split, split.target, nets, recipe)
    parts = [split.source[i * CLASSES : (i + 1) * CLASSES] for i in range(SOURCES)]
    sources = [train_or_load(split, part, nets, recipe) for part in parts]
    # The images that may be learnt from are drawn once: at every step all methods have the same ones of a class.
    drawn = replace(split, train=replace(split, cloned=split.source).sample(fraction))
    arena = Arena(drawn, target, sources[0], 1.0, precision=precision, sides=False)
    learn = METHODS[method](arena, sources)
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


def _at(arena: Arena, network: Network, source: Network, known: tuple[str, ...], part: tuple[str, ...]) -> Arena:
    """The arena of one step: `network` knows `known`, and `part` is to be learnt."""
    split = replace(arena.split, target=known, source=part, cloned=part)
    return replace(arena, split=split, target=network, source=source)


def _modules(arena: Arena, sources: list[Network], *, head: CommonHead) -> Learn:
    target, base = arena.target, arena.split.target
    composed: Composed | None = None

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        nonlocal composed
        here = _at(arena, target, sources[number], base, part)
        bundle = clone(target, sources[number], here.images, config_of(here, "pnc_fast"))
        composed = attach(composed or target[0], bundle)
        images = _at(arena, target, sources[number], known, part).images
        augmentation = arena.split.suite.augment if head == "joint" else "none"
        balanced = rebalance(composed, images, head=head, augmentation=augmentation)  # type: ignore[arg-type]
        return lambda images: predict(balanced, target[1], images)

    return learn


def _ensemble(arena: Arena, sources: list[Network]) -> Learn:
    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        networks = [arena.target, *sources[: number + 1]]
        return lambda images: torch.cat([predict(*network, images).softmax(1) for network in networks], 1)

    return learn


def _balanced(arena: Arena, sources: list[Network], *, head: CommonHead) -> Learn:
    """The whole sources beside the target, with what modules get from the same images: a scale and an offset each,
    or a correction of all logits as well, which here reads the sources' last taps besides.
    """
    networks = [trace(*network) for network in (arena.target, *sources)]
    taps = [side.taps[-1 if place else 0 :] if head == "joint" else () for place, side in enumerate(networks)]

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        images = _at(arena, arena.target, sources[number], known, part).images
        beside = list(zip(networks, taps, strict=True))[: number + 2]
        views = [images.images, *([arena.view(images.images, arena.generator("balance"))] if head == "joint" else [])]
        sides = [_said(*network, torch.cat(views)) for network in beside]
        balance, common = fit_balance(_side_by_side, _rows(sides, images.labels.repeat(len(views))))

        def answer(pixels: Tensor) -> Tensor:
            rows = _rows([_said(*network, pixels) for network in beside], images.labels)
            pairs = zip(rows.answers, balance, strict=True)
            joined = _side_by_side(rows.old, [(None, own * scale + offset) for (_, own), (scale, offset) in pairs])
            if common is None or rows.features is None:
                return joined
            parts = joined.float().split((len(arena.split.target), joined.shape[1] - len(arena.split.target)), dim=1)
            return torch.cat(common(*parts, rows.features), 1)

        return answer

    return learn


def _said(traced: Traced, taps: tuple[PositionInfo, ...], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and pooled taps of uint8 images."""
    reader, axes = Reader(traced, [p.name for p in taps]), [p.axis for p in taps]
    logits, features = [], []
    with torch.no_grad():
        for index in batches(len(pixels), EVALUATION_BATCH):
            said, seen = reader(preprocess(pixels[index], traced.spec))
            logits.append(said)
            features.append(pool_taps([seen[p.name] for p in taps], axes, 1) if taps else said[:, :0])
    return torch.cat(logits), torch.cat(features)


def _rows(sides: list[tuple[Tensor, Tensor]], labels: Tensor) -> Rows:
    old, *own = (logits.double() for logits, _ in sides)
    features = torch.cat([features for _, features in sides], 1)
    return Rows(old, [(None, logits) for logits in own], labels, features if features.shape[1] else None)


def _side_by_side(old: Tensor, answers: list[ModuleLogits]) -> Tensor:
    return torch.cat([old, *(own for _, own in answers)], 1)


def _lwf(arena: Arena, sources: list[Network]) -> Learn:
    state = arena.target

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        nonlocal state
        here = _at(arena, state, sources[number], known, part)
        network = state = learn_lwf(here), here.spec
        return lambda images: predict(*network, images)

    return learn


def _memo(arena: Arena, sources: list[Network]) -> Learn:
    network = Memo(arena)

    def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
        spec = replace(arena.target[1], classes=known)
        here = _at(arena, (network, spec), sources[number], known, part)
        learn_memo(here, network)
        return lambda images: predict(network, here.spec, images)

    return learn


METHODS: dict[str, Callable[[Arena, list[Network]], Learn]] = {
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
