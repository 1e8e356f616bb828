"""Which cloning jobs make sense, judged by rows alone, and what one will cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.datasets.tables import DatasetRow
from app.errors import Invalid, Problem
from app.models import service as models
from app.models.tables import VersionRow
from pnc_core.config import MIN_IMAGES, CloneConfig

LARGE_MACS = 10**14
"""Jobs of more multiply-accumulates are large: about half an hour of one processor core."""
_PASSES = 3
"""A training step costs about three forward passes: one forward, two backward."""


@dataclass(frozen=True)
class Estimate:
    """What a job will cost at most; an upper bound, not a promise."""

    old_images: int
    """Images of the target's classes."""
    new_images: int
    """Images of the cloned classes."""
    macs: int | None
    """Multiply-accumulates of screening and training; None while a version is validating."""
    module_parameters: int | None
    """Largest module that `max_size` allows; None while the source is validating."""


def check(target: VersionRow, source: VersionRow, dataset: DatasetRow, config: CloneConfig) -> list[Problem]:
    """All faults of a job; empty when it can run, or as soon as its versions are ready."""
    faults = [
        *_rejected("/target", target),
        *_rejected("/source", source),
        *_classes(target, source, config),
        *_protected(source, config),
        *_archived(dataset),
        *_images(target, dataset, config),
    ]
    if target.id == source.id:
        faults.append(
            Problem("/source", "same_version", f"expected another version than the target, got {source.ref} twice")
        )
    return faults


def estimate(target: VersionRow, source: VersionRow, dataset: DatasetRow, config: CloneConfig) -> Estimate:
    """An upper bound of what a job costs."""
    new = sum(dataset.counts.get(name, 0) for name in config.classes)
    old = sum(dataset.counts.get(name, 0) for name in target.spec["classes"])
    macs = None
    if target.macs is not None and source.macs is not None:
        learned = config.epochs + config.refine + config.shortlist if config.preset == "joint" else 1
        read = old + new if config.labels else dataset.rows
        macs = int(read * (2 + config.views + _PASSES * learned) * (target.macs + source.macs))
    parameters = None if source.parameters is None else int(source.parameters * config.max_size)
    return Estimate(old, new, macs, parameters)


def size_of(target: VersionRow, source: VersionRow, dataset: DatasetRow, config: CloneConfig) -> str:
    """`small` or `large`: which queue a job waits in, so that long jobs do not keep short ones waiting."""
    return "large" if (estimate(target, source, dataset, config).macs or 0) > LARGE_MACS else "small"


def _rejected(pointer: str, version: VersionRow) -> Iterator[Problem]:
    if version.status == "rejected":
        reason = (version.problem or {}).get("detail", "no reason was recorded")
        yield Problem(
            pointer, "version_rejected", f"expected a usable version, got {version.ref}, which was rejected: {reason}"
        )
    yield from models.archived_problems(pointer, version)


def _archived(dataset: DatasetRow) -> Iterator[Problem]:
    if dataset.archived_at is not None:
        yield Problem(
            "/dataset", "dataset_archived", f"expected a live dataset, got {dataset.id}, which is archived; restore it"
        )


def _classes(target: VersionRow, source: VersionRow, config: CloneConfig) -> Iterator[Problem]:
    for name in config.classes:
        if name not in source.spec["classes"]:
            yield Problem(
                "/config/classes",
                "unknown_class",
                f"expected classes of {source.ref} ({_some(source.spec['classes'])}), got {name!r}",
            )
        if name in target.spec["classes"]:
            yield Problem(
                "/config/classes",
                "class_in_target",
                f"expected classes that {target.ref} lacks, got {name!r}, which it has; leave it out",
            )


def check_clonable(source: VersionRow, config: CloneConfig) -> None:
    """See that the source's owner lets these classes be cloned, now that a worker is about to.

    Raises:
        Invalid: they do not, perhaps since the job was submitted.
    """
    faults = list(_protected(source, config))
    if faults:
        raise Invalid(faults)


def _protected(source: VersionRow, config: CloneConfig) -> Iterator[Problem]:
    allowed = source.model.clonable
    if allowed is None:
        return
    for name in config.classes:
        if name not in allowed:
            got = f"of {_some(allowed)}" if allowed else "of none"
            detail = f"expected classes that {source.model.name} lets be cloned ({got}), got {name!r}; ask its owner"
            yield Problem("/config/classes", "not_clonable", detail)


def _images(target: VersionRow, dataset: DatasetRow, config: CloneConfig) -> Iterator[Problem]:
    counts: Mapping[str, int] = dataset.counts
    if not config.labels:  # who an image shows is only known once the networks have named it
        classes = len(config.classes) + (len(target.spec["classes"]) if config.old_images else 0)
        if dataset.rows < MIN_IMAGES * classes:
            detail = f"expected at least {MIN_IMAGES} images of each of {classes} classes, got {dataset.rows} images"
            yield Problem("/dataset", "too_few_images", f"{detail} in {dataset.id}; add some")
        return
    if not dataset.classes:
        yield Problem(
            "/dataset",
            "no_labels",
            f"expected images with labels, got {dataset.id}, which has none; set labels to false, so that the two "
            "networks name the images, or send them in one folder a class",
        )
        return
    for name in config.classes:
        if counts.get(name, 0) < MIN_IMAGES:
            yield Problem(
                "/dataset",
                "too_few_images",
                f"expected at least {MIN_IMAGES} images of class {name!r} in {dataset.id}, got {counts.get(name, 0)}; "
                "add some",
            )
    short = [name for name in target.spec["classes"] if counts.get(name, 0) < MIN_IMAGES]
    if config.old_images and short:
        yield Problem(
            "/dataset",
            "too_few_old_images",
            f"expected at least {MIN_IMAGES} images of each of the target's {len(target.spec['classes'])} classes in "
            f"{dataset.id}, got fewer of {_some(short)}; add some, or set old_images to false if there are none",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
