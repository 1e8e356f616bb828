"""A composition of modules from files: a target, bundles and images in, a composition out."""

from collections.abc import Sequence
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
from pnc_core.config import NetworkSpec, geometries_of
from pnc_core.devices import device_of
from pnc_core.errors import SourceMismatch, WeightsMismatch
from pnc_core.graph.architectures import load_network
from pnc_core.identity import fingerprint
from pnc_core.images import EVALUATION_BATCH
from pnc_core.method.composing.compose import compose
from pnc_core.method.composing.extend import extend
from pnc_core.method.composing.ridge import MOST_FEATURES
from pnc_core.method.job import Progress as Step
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.composition import Composition, HeadKind, read_composition
from pnc_core.networks.files import as_safetensors

Network = tuple[nn.Module, NetworkSpec]


@dataclass(frozen=True)
class Parts:
    """Input files of a composition."""

    target: Path
    """Weights as safetensors, or as written by `torch.save`."""
    target_spec: NetworkSpec
    bundles: Sequence[Path]
    sources: Sequence[Path]
    """Weights of sources, in any order; each belongs to a bundle. A thin bundle needs its source."""
    data: Path | str
    """Any source of `pnc_client.sources.open_images`, with labels."""
    images: Options | None = None
    """Choices where the source of images has several splits, columns or names."""


@dataclass(frozen=True)
class Choices:
    """Parameters of a composition, see `pnc_core.method.composing.compose.compose`."""

    head: HeadKind = "affine"
    most_features: int = MOST_FEATURES
    keep_anyway: bool = False
    seed: int = 0


def compose_files(
    parts: Parts,
    choices: Choices,
    console: Console,
    *,
    earlier: Path | None = None,
    quiet: bool = False,
    device: str = "cpu",
) -> Composition:
    """Compose modules, or extend an earlier composition by further modules.

    Args:
        parts: Files of the target, of the modules and of the images.
        choices: Parameters; of an extension none counts.
        console: Shows the progress.
        earlier: File of the composition to extend; the images are then those of the new modules. None: a new one.
        quiet: Show nothing.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        PncError: a file or a parameter is invalid, or the device is not available.
        OSError: a file cannot be read.
    """
    columns = (TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet) as progress:
        task = progress.add_task("loading", total=1.0)

        def note(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False)

        def report(step: Step) -> None:
            progress.update(task, description=step.stage, completed=step.done)

        place = device_of(device)
        bundles = [read_bundle(path) for path in parts.bundles]
        target = _loaded(parts.target, parts.target_spec, place), parts.target_spec
        torch.set_num_threads(processors.threads_for(EVALUATION_BATCH * multiply_accumulates(*target)))
        sources = _sources(parts.sources, bundles, place)
        classes = tuple(dict.fromkeys((*parts.target_spec.classes, *(c for b in bundles for c in b.manifest.classes))))
        geometries = geometries_of([parts.target_spec, *(bundle.manifest.source for bundle in bundles)])
        images = read_images(parts.data, classes, geometries, options=parts.images, note=note)
        if earlier is not None:
            made = extend(target, bundles, read_composition(earlier), images, sources=sources, report=report)
        else:
            made = compose(
                target, bundles, images, head=choices.head, sources=sources, most_features=choices.most_features,
                keep_anyway=choices.keep_anyway, seed=choices.seed, report=report,
            )  # fmt: skip
        progress.update(task, description="done", completed=1.0)
        return made


def _loaded(path: Path, spec: NetworkSpec, device: str) -> nn.Module:
    with as_safetensors(path) as file:
        return load_network(spec, file).requires_grad_(False).to(device)


def _sources(paths: Sequence[Path], bundles: Sequence[Bundle], device: str) -> list[Network | None]:
    """The source of each bundle; None where no file has it.

    Raises:
        SourceMismatch: a file is the source of no bundle.
    """
    found: dict[str, Network] = {}
    for path in paths:
        specs = {bundle.manifest.source_fingerprint: bundle.manifest.source for bundle in bundles}
        network = next(filter(None, (_fitting(path, spec, mark, device) for mark, spec in specs.items())), None)
        if network is None:
            raise SourceMismatch(
                f"{path}: expected the source of one of the bundles, got another network; leave it out"
            )
        found[fingerprint(network[0])] = network
    return [found.get(bundle.manifest.source_fingerprint) for bundle in bundles]


def _fitting(path: Path, spec: NetworkSpec, mark: str, device: str) -> Network | None:
    """The network in a file if it has this fingerprint, else None."""
    try:
        network = _loaded(path, spec, device)
    except WeightsMismatch:
        return None
    return (network, spec) if fingerprint(network) == mark else None
