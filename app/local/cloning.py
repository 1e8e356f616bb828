"""A cloning job on files: two networks and a folder of images in, a bundle out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.evidence.images import read_images
from app.local.weights import as_safetensors
from app.process import processors
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.config import CloneConfig, NetworkSpec, geometries_of
from pnc_core.devices import device_of
from pnc_core.graph.architectures import load_network
from pnc_core.method.clone import clone
from pnc_core.method.job import Progress as Step
from pnc_core.method.watermark import Mark
from pnc_core.module.bundle import Bundle


@dataclass(frozen=True)
class Material:
    """What a job works on."""

    target: Path
    """Weights, safetensors or pickled."""
    target_spec: NetworkSpec
    source: Path
    source_spec: NetworkSpec
    data: Path
    """A directory with one directory a class, or a Parquet file; without labels if the job reads none."""


def clone_files(
    material: Material,
    config: CloneConfig,
    console: Console,
    *,
    quiet: bool = False,
    mark: Mark | None = None,
    device: str = "cpu",
) -> Bundle:
    """Clone classes of one weight file into a module for another.

    Args:
        material: Networks and images.
        config: What to clone and how.
        console: Where progress and every position that is tried are shown.
        quiet: Show nothing.
        mark: Has a say in which channels are kept.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        PncError: files, classes, parameters or device make no sense.
        OSError: a file cannot be read.
    """
    place = device_of(device)
    with as_safetensors(material.target) as file:
        target = load_network(material.target_spec, file).requires_grad_(False).to(place)
    with as_safetensors(material.source) as file:
        source = load_network(material.source_spec, file).requires_grad_(False).to(place)
    work = config.batch_size * max(
        multiply_accumulates(target, material.target_spec), multiply_accumulates(source, material.source_spec)
    )
    torch.set_num_threads(processors.threads_for(work))
    classes = (*material.target_spec.classes, *config.classes)
    geometries = geometries_of([material.target_spec, material.source_spec])
    columns = (TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet) as progress:
        task = progress.add_task("reading images", total=1.0)
        images = read_images(material.data, classes, geometries, labelled=config.labels)

        def report(step: Step) -> None:
            progress.update(task, description=step.stage, completed=step.done)
            if "trial" in step.data:
                progress.console.print(step.message, markup=False, highlight=False)

        return clone(
            (target, material.target_spec),
            (source, material.source_spec),
            images,
            config,
            report=report if not quiet else lambda step: None,
            mark=mark,
        )
