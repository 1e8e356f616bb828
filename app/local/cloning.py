"""A cloning job on files: two networks and a directory of images in, a bundle out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from app.evidence.images import read_images
from app.process.resources import processors
from pnc_client.sources import Options
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.class_names import ClassNames, resolved
from pnc_core.config import CloneConfig, NetworkSpec, geometries_of
from pnc_core.devices import device_of
from pnc_core.graph.architectures import load_network
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet
from pnc_core.method.advice import Advice, advise
from pnc_core.method.clone import clone
from pnc_core.method.job import Progress as Step
from pnc_core.method.job import prepare
from pnc_core.module.bundle import Bundle
from pnc_core.module.watermark import Mark
from pnc_core.networks.files import as_safetensors


@dataclass(frozen=True)
class Material:
    """Input files of a job."""

    target: Path
    """Weights as safetensors, or as written by `torch.save`."""
    target_spec: NetworkSpec
    source: Path
    source_spec: NetworkSpec
    data: Path | str
    """Any source of `pnc_client.sources.open_images`; labels are optional if `config.labels` is False."""
    images: Options | None = None
    """Choices where the source of images has several splits, columns or names."""


def clone_files(
    material: Material,
    config: CloneConfig,
    console: Console,
    *,
    quiet: bool = False,
    mark: Mark | None = None,
    device: str = "cpu",
) -> Bundle:
    """Clone classes of a source into a module for a target.

    Args:
        material: Files of both networks and of the images.
        config: Classes and parameters of the job.
        console: Shows the progress and each trial.
        quiet: Show nothing.
        mark: Watermark key that influences the choice of kept channels; None: no watermark.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        PncError: a file, class or parameter is invalid, or the device is not available.
        OSError: a file cannot be read.
    """
    columns = (TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet) as progress:
        task = progress.add_task("reading images", total=1.0)
        inputs = _read(
            material, config, device, lambda text: progress.console.print(text, markup=False, highlight=False)
        )

        def report(step: Step) -> None:
            progress.update(task, description=step.stage, completed=step.done)
            if "trial" in step.data:
                progress.console.print(step.message, markup=False, highlight=False)

        return clone(*inputs, report=report if not quiet else lambda step: None, mark=mark)


def advise_files(material: Material, config: CloneConfig, console: Console, *, device: str = "cpu") -> Advice:
    """Advice for a job on files, without cloning; arguments and errors as for `clone_files`."""
    target, source, images, config = _read(
        material, config, device, lambda text: console.print(text, markup=False, highlight=False)
    )
    traced = trace(*target), trace(*source)
    return advise(prepare(*traced, images, config, lambda step: None, lambda: False))


def _read(
    material: Material, config: CloneConfig, device: str, note: Callable[[str], None]
) -> tuple[tuple[nn.Module, NetworkSpec], tuple[nn.Module, NetworkSpec], ImageSet, CloneConfig]:
    """Both networks, the images, and the parameters with the source's own names of classes."""
    source_spec = material.source_spec
    config = resolved(config, ClassNames(source_spec.classes, source_spec.class_aliases))
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
    images = read_images(material.data, classes, geometries, options=material.images, labelled=config.labels, note=note)
    return (target, material.target_spec), (source, material.source_spec), images, config
