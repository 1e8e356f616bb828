"""Rules for cloning jobs, checked against database rows only, and estimates of a job's cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.datasets.tables import DatasetRow
from app.errors import Invalid, Problem
from app.models import service as models
from app.models.tables import VersionRow
from pnc_core.config import MIN_IMAGES, CloneConfig

LARGE_MACS = 10**14
"""Jobs with more multiply-accumulates are `large`. One processor core needs about half an hour for this number."""
_PASSES = 3
"""A training step costs as much as three forward passes: the backward pass costs about two."""


@dataclass(frozen=True)
class Estimate:
    """Upper bounds of a job's cost."""

    old_images: int
    """Images of the target's classes."""
    new_images: int
    """Images of the cloned classes."""
    macs: int | None
    """Multiply-accumulates of screening and training; None while a version is validating."""
    module_parameters: int | None
    """Parameters of the largest module that `max_size` allows; None while the source is validating."""


def check(target: VersionRow, source: VersionRow, dataset: DatasetRow, config: CloneConfig) -> list[Problem]:
    """All problems of a job; empty if the job can run as soon as both versions are ready."""
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
            Problem("/source", "same_version", f"expected a source other than the target, got {source.ref} as both")
        )
    return faults


def estimate(target: VersionRow, source: VersionRow, dataset: DatasetRow, config: CloneConfig) -> Estimate:
    """Upper bounds of a job's cost."""
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
    """`small` or `large`. Each size has its own queue, so that long jobs do not delay short ones."""
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
            "/dataset",
            "dataset_archived",
            f"expected a dataset that is not archived, got {dataset.id}, which is; restore it",
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
                f"expected classes that {target.ref} does not have, got {name!r}; leave this class out",
            )


def check_clonable(source: VersionRow, config: CloneConfig) -> None:
    """Check that the source's owner allows these classes to be cloned.

    A worker calls this before it clones, because the owner may have changed the list since the job was submitted.

    Raises:
        Invalid: the owner does not allow a class.
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
            names = _some(allowed) if allowed else "none"
            detail = (
                f"expected classes that the owner of {source.model.name} allows to be cloned ({names}), got {name!r}; "
                "ask the owner"
            )
            yield Problem("/config/classes", "not_clonable", detail)


def _images(target: VersionRow, dataset: DatasetRow, config: CloneConfig) -> Iterator[Problem]:
    counts: Mapping[str, int] = dataset.counts
    if not config.labels:  # the class of an image is known only after the networks have predicted it
        classes = len(config.classes) + (len(target.spec["classes"]) if config.old_images else 0)
        if dataset.rows < MIN_IMAGES * classes:
            detail = f"expected at least {MIN_IMAGES} images of each of {classes} classes, got {dataset.rows} images"
            yield Problem("/dataset", "too_few_images", f"{detail} in {dataset.id}; add images")
        return
    if not dataset.classes:
        yield Problem(
            "/dataset",
            "no_labels",
            f"expected images with labels, got {dataset.id}, which has none; set labels to false to use the classes "
            "that the two networks predict, or register the images in one folder a class",
        )
        return
    for name in config.classes:
        if counts.get(name, 0) < MIN_IMAGES:
            yield Problem(
                "/dataset",
                "too_few_images",
                f"expected at least {MIN_IMAGES} images of class {name!r} in {dataset.id}, got {counts.get(name, 0)}; "
                "add images",
            )
    short = [name for name in target.spec["classes"] if counts.get(name, 0) < MIN_IMAGES]
    if config.old_images and short:
        yield Problem(
            "/dataset",
            "too_few_old_images",
            f"expected at least {MIN_IMAGES} images of each of the target's {len(target.spec['classes'])} classes in "
            f"{dataset.id}, got fewer of {_some(short)}; add images, or set old_images to false if there are none",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
