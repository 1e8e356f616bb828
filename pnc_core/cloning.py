"""`clone()`: the one door to the method. It reads like the method section.

References:
    Ye, Liu, Wang, "Partial Network Cloning", CVPR 2023, arXiv:2303.10597.
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from torch import nn

from pnc_core.bundle import Bundle
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.data import ImageSet
from pnc_core.head import FittedHead, HeadChoice, choose_head
from pnc_core.identity import fingerprint
from pnc_core.insert import Insertion, head_inputs
from pnc_core.job import Job, Progress, Report, prepare
from pnc_core.manifest import FORMAT, HeadSpec, Manifest, Sizes
from pnc_core.module import module_tensors
from pnc_core.positions import INPUT, trace
from pnc_core.search import search

HEADS = ("affine", "router", "joint")


def clone(
    target: tuple[nn.Module, NetworkSpec],
    source: tuple[nn.Module, NetworkSpec],
    images: ImageSet,
    config: CloneConfig,
    *,
    report: Report = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Bundle:
    """Clone classes of a source into a module for a target.

    Neither network changes. Equal networks, images, parameters and thread counts
    give equal bundles.

    Args:
        target: The network that will receive the module, in eval mode, and its spec.
        source: The network that has the classes, in eval mode, and its spec.
        images: Labelled images of old and cloned classes; others are ignored.
        config: What to clone and how.
        report: Called with every step's progress.
        cancelled: Asked between steps; True ends the job.

    Returns:
        A full bundle; `.thin()` gives the thin one.

    Raises:
        ConfigError: classes or parameters make no sense.
        DataError: images are missing.
        NetworkError: a network is in train mode or cannot be traced.
        PositionError: no position can be used.
        Cancelled: `cancelled` answered True.
    """
    job = prepare(trace(*target), trace(*source), images, config, report, cancelled)
    insertion, _ = search(job)
    fitted = calibrate(job, insertion)
    report(Progress("calibrating", 1.0, f"{fitted.head.kind} head: joint accuracy {fitted.score.average:.3f}"))
    manifest = _manifest(job, insertion, fitted, fingerprint(target[0]), fingerprint(source[0]))
    return Bundle(manifest, module_tensors(insertion, fitted.head))


def calibrate(job: Job, insertion: Insertion) -> FittedHead:
    """Fit the heads on cached logits and taps, and choose one on the held-out images."""
    job.report(Progress("calibrating", 0.9, "fitting heads on the taps"))
    grids = sorted({1, job.config.tap_grid})
    train = head_inputs(job, insertion, job.train, grids, job.config.views)
    validation = head_inputs(job, insertion, job.validation, grids, job.config.views)
    kinds = HEADS if job.config.head == "auto" else (job.config.head,)
    rows = list(zip(grids, train, validation, strict=True))
    # The affine head reads no taps, so that one grid is enough for it.
    choices = [HeadChoice(kind, *row) for kind in kinds for row in (rows[:1] if kind == "affine" else rows)]
    room = job.config.max_size * job.source.numbers - insertion.tail.numbers - insertion.trained_numbers
    fitting = [choice for choice in choices if choice.numbers <= room]
    return choose_head(fitting or choices[:1])


def _manifest(
    job: Job, insertion: Insertion, fitted: FittedHead, target_fingerprint: str, source_fingerprint: str
) -> Manifest:
    tail, head, score = insertion.tail, fitted.head, fitted.score
    head_numbers = sum(t.numel() for t in head.state_dict().values())
    return Manifest(
        format=FORMAT,
        payload="full",
        classes=job.config.classes,
        target=job.target.spec,
        target_fingerprint=target_fingerprint,
        source=job.source.spec,
        source_fingerprint=source_fingerprint,
        position=insertion.position,
        adapter_relu=insertion.adapter.relu,
        kept_fraction=round(tail.numbers / insertion.whole, 6),
        head=HeadSpec(
            kind=head.kind,  # type: ignore[arg-type]
            grid=fitted.grid,
            target_taps=tuple(p.name for p in job.target.positions if p.name != INPUT),
            module_taps=tail.taps,
        ),
        sizes=Sizes(
            source=job.source.numbers, module=tail.numbers, adapter=insertion.trained_numbers, head=head_numbers
        ),
        validation={
            name: round(value, 6)
            for name, value in (("old", score.old), ("new", score.new), ("average", score.average))
        },
        config=job.config,
        created_by=_software(),
    )


def _software() -> str:
    try:
        return f"pnc-zoo {version('pnc-zoo')}"
    except PackageNotFoundError:
        return "pnc-zoo (not installed)"
