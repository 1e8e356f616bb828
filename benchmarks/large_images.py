"""Time of a job with preset `fast` on large images, as a multiple of one pass of both networks over the same images.

    python -m benchmarks.large_images --out results

Two networks with random weights and random images: the benchmark measures time and memory, and no accuracy. Running
both networks over all images once is the least that any method does; the job's time is divided by it.
"""

import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from pnc_core.analysis.evaluation import predict
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OLD, NEW, CLONED = tuple("abcde"), tuple("fghij"), ("f", "g")


@dataclass(frozen=True)
class Cost:
    """Time and memory of one job."""

    architecture: str
    size: int
    """Height and width of the images, in pixels."""
    images: int
    threads: int
    pass_seconds: float
    """Wall clock time of one pass of target and source over the images."""
    job_seconds: float
    """Wall clock time of the job."""
    ratio: float
    pass_processor_seconds: float
    job_processor_seconds: float
    megabytes: float
    """Peak of the process's memory."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for large-images.json.")],
    architecture: Annotated[str, typer.Option(help="Architecture of target and source.")] = "torchvision/resnet18",
    size: Annotated[int, typer.Option(help="Height and width of the images.")] = 224,
    images: Annotated[int, typer.Option(help="Number of images.")] = 500,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
) -> None:
    """Measure one job and print the ratio."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    cost = measure(architecture, size, images)
    file = out / "large-images.json"
    rows = json.loads(file.read_text()) if file.is_file() else []
    file.write_text(json.dumps([*rows, asdict(cost)], indent=1) + "\n")
    Console().print(
        f"job {cost.job_seconds:.1f} s, one pass of both networks {cost.pass_seconds:.1f} s: ratio {cost.ratio:.2f}; "
        f"{cost.megabytes:,.0f} MB"
    )


def measure(architecture: str, size: int, images: int) -> Cost:
    """Measure one pass of both networks, and then the job."""
    target, source = _network(architecture, size, OLD, 0), _network(architecture, size, NEW, 1)
    given = _images(size, images)
    passed = _timed(lambda: [predict(*network, given.images) for network in (target, source)])
    config = CloneConfig(classes=CLONED, preset="fast", keep_anyway=True)
    job = _timed(lambda: clone(target, source, given, config))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Cost(
        architecture, size, images, torch.get_num_threads(), passed[0], job[0], job[0] / passed[0], passed[1], job[1],
        peak,
    )  # fmt: skip


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and processor seconds."""
    wall, processor = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - wall, time.process_time() - processor


def _network(architecture: str, size: int, classes: tuple[str, ...], seed: int) -> tuple[torch.nn.Module, NetworkSpec]:
    spec = NetworkSpec(architecture=architecture, classes=classes, input_size=(3, size, size), mean=MEAN, std=STD)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(spec).eval().requires_grad_(False), spec


def _images(size: int, count: int) -> ImageSet:
    """Random images of the target's classes and the cloned ones, as many of each."""
    classes = (*OLD, *CLONED)
    pixels = torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    return ImageSet(pixels, torch.arange(count) % len(classes), classes)


if __name__ == "__main__":
    typer.run(main)
