"""Verify a bundle and measure the composed network; neither network changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from app.evidence.images import read_images
from app.process.resources import processors
from pnc_client.sources import Options
from pnc_core.analysis.curves import masking_curve, position_curve
from pnc_core.analysis.evaluation import direct_ensembles, judge, multiply_accumulates, oracle, predict
from pnc_core.analysis.evidence import Logits, Similarity, module_logits, network_logits, similarity, verify_bundle
from pnc_core.analysis.residue import residue
from pnc_core.config import NetworkSpec, geometries_of
from pnc_core.errors import DataError
from pnc_core.graph.architectures import load_network
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet, preprocess
from pnc_core.method import lime
from pnc_core.method.search import Trial
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.composed import Composed, attach, detach
from pnc_core.module.entry import pixels_for

Network = tuple[nn.Module, NetworkSpec]
Evidence = dict[str, Any]
Step = Callable[[float, str], None]
PER_CLASS = 32
"""Maximum images of each class for the similarity; each image needs 32 forward passes of both networks."""
MASKING_IMAGES = 1000
"""Maximum images of old and cloned classes for training and evaluating the masking curve."""
_PROBE = 64
"""Number of images for comparing the target before and after attaching."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Input files, output directory and options of `pnc evidence`."""

    bundle: Path
    target: Path
    source: Path
    data: Path | str
    out: Path
    images: Options | None = None
    """Choices where the source of images has several splits, columns or names."""
    trials: Path | None
    """JSON: the response of GET /v1/cloning-jobs/{job}/trials, or a list of trials; None: no plot of positions."""
    seeds: int
    """Number of seeds of the masking curve; 0: no masking curve."""
    epochs: int
    """Epochs of feature matching at each point of the masking curve."""


def collect(request: Request, trials: list[Trial], console: Console) -> Evidence:
    """Verify the bundle and measure everything; no file is written and neither network changes."""
    bundle = read_bundle(request.bundle)
    manifest = bundle.manifest
    target = load_network(manifest.target, request.target), manifest.target
    source = load_network(manifest.source, request.source), manifest.source
    composed = attach(target[0], bundle, source=source[0])
    work = _PROBE * max(multiply_accumulates(composed, manifest.target), multiply_accumulates(*source))
    torch.set_num_threads(processors.threads_for(work))
    verified = verify_bundle(bundle, source[0])
    names = dict.fromkeys((*manifest.target.classes, *manifest.classes, *manifest.source.classes))
    with _progress(console, "reading images") as step:
        images = read_images(
            request.data,
            tuple(names),
            geometries_of([manifest.target, manifest.source]),
            lambda n: step(0.0, f"{n:,} images"),
            options=request.images,
            note=lambda text: console.print(text, markup=False, highlight=False),
        )
        _check_sides(images, manifest.target.classes, manifest.classes)
    with _progress(console, "local representations") as step:
        similar = _measured_similarity(composed, source, images, step)
    with _progress(console, "classes left out"):
        residual = _residue(target, source, bundle, images)
    judged = _accuracies(composed, source, images)
    masking = []
    if request.seeds:
        with _progress(console, "masking curve") as step:
            masking = _masking(request, bundle, (target, source), images, step)
    return {
        "classes": manifest.classes,
        "position": str(manifest.position),
        "payload": manifest.payload,
        "sizes": asdict(manifest.sizes),
        "multiply_accumulates": {
            "target": multiply_accumulates(*target),
            "composed": multiply_accumulates(composed, manifest.target),
        },
        "verified": asdict(verified),
        "restored": _restoration(target, composed, images),
        **judged,
        "similarity": _similarity(similar),
        "residue": residual,
        "masking": masking,
        "positions": [asdict(point) for point in position_curve(trials)],
    }


def _check_sides(images: ImageSet, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    for side, classes in (("the target's classes", old), ("the cloned classes", new)):
        if not len(images.only(classes)):
            raise DataError(
                f"images: expected images of {side} {list(classes[:3])}, got none; add images of these classes"
            )


def _measured_similarity(composed: Composed, source: Network, images: ImageSet, step: Step) -> Similarity:
    (module,) = composed.attached
    counts = torch.bincount(images.only(source[1].classes).labels)
    total, done = 2 * lime.VARIANTS * int(counts.clamp(max=PER_CLASS).sum()), 0

    def counted(logits: Logits) -> Logits:
        def run(pixels: Tensor) -> Tensor:
            nonlocal done
            done += len(pixels)
            step(done / total, f"{done:,} variants")
            return logits(pixels)

        return run

    sides = counted(network_logits(*source)), counted(module_logits(composed.traced, module))
    return similarity(
        *sides, images, source[1], module.manifest.classes, limit=PER_CLASS, module_spec=pixels_for(module.manifest)
    )


def _residue(target: Network, source: Network, bundle: Bundle, images: ImageSet) -> Evidence | None:
    """The residue of the classes that were not cloned; None: fewer than two such classes have enough images."""
    try:
        found = residue(target, source, bundle, images)
    except DataError:
        return None
    return asdict(found) | {"added": found.added}


def _accuracies(composed: Composed, source: Network, images: ImageSet) -> Evidence:
    """Accuracy, locality and leak of the composed network, and accuracy of baselines that need no cloning."""
    spec = composed.traced.spec
    cloned = composed.classes[len(spec.classes) :]
    used = images.only(composed.classes)
    logits, alone = (predict(network, spec, used.views) for network in (composed, composed.target))
    found = judge(logits, alone, used.labels)
    ceiling = oracle(logits, used.labels, len(spec.classes))
    ensembles = direct_ensembles((composed.target, spec), source, cloned, used)
    return {
        "images": dict(
            zip(used.classes, torch.bincount(used.labels, minlength=len(used.classes)).tolist(), strict=True)
        ),
        "composed": asdict(found) | {"harmonic": found.harmonic},
        "oracle": {"old": ceiling.old, "new": ceiling.new, "average": ceiling.average},
        "direct_ensemble": {name: asdict(e) | {"harmonic": e.harmonic} for name, e in ensembles.items()},
    }


def _restoration(target: Network, composed: Composed, images: ImageSet) -> Evidence:
    """Compare the target before and after attaching, running and detaching: fingerprint and logits must be equal."""
    x = preprocess(images.views[:_PROBE], target[1])
    with torch.no_grad():
        before, digest = target[0](x), fingerprint(target[0])
        composed(x)
        after = detach(composed)
        difference = float((after(x) - before).abs().max())
    return {"bit_for_bit": fingerprint(after) == digest and difference == 0, "max_logit_difference": difference}


def _masking(
    request: Request, bundle: Bundle, networks: tuple[Network, Network], images: ImageSet, step: Step
) -> list[Evidence]:
    # Unlike the job's images, these images always have labels and always include old classes.
    config = replace(bundle.manifest.config, position=bundle.manifest.position, views=1, old_images=True, labels=True)
    few = images.only((*networks[0][1].classes, *config.classes))
    if len(few) > MASKING_IMAGES:
        few = few.sample(MASKING_IMAGES, torch.Generator().manual_seed(config.seed))
    points = masking_curve(*networks, few, config, seeds=range(request.seeds), epochs=request.epochs, step=step)
    return [asdict(point) for point in points]


def _similarity(found: Similarity) -> Evidence:
    return {
        "rows": found.rows,
        "columns": found.columns,
        "images": found.images,
        "module": found.module.tolist(),
        "source": found.source.tolist(),
        "transferability": found.transferability,
        "explicitness": found.explicitness,
        "ceiling": found.ceiling,
        "shuffled": found.shuffled,
    }


@contextmanager
def _progress(console: Console, title: str) -> Iterator[Step]:
    columns = (TextColumn("{task.description:<22}"), BarColumn(), TextColumn("{task.fields[message]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(title, total=1.0, message="")
        yield lambda done, message: progress.update(task, completed=done, message=message)
        progress.update(task, completed=1.0)
