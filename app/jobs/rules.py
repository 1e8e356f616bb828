"""Rules for cloning jobs, checked against database rows only, and estimates of a job's cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.datasets.tables import DatasetRow
from app.errors import Invalid, Problem
from app.models import classes
from app.models import service as models
from app.models.tables import VersionRow
from pnc_core.class_names import repeated
from pnc_core.config import MIN_IMAGES, CloneConfig
from pnc_core.errors import AmbiguousClass, UnknownClass

LARGE_MACS = 10**14
"""Jobs with more multiply-accumulates are `large`. One processor core needs about half an hour for this number."""
MOST_REFUSED = 3
"""Unknown class names of a job that are answered; the answer to each name needs a search."""
MOST_NAMED = 3
"""Class names that a message shows."""
_CLASSES = "/config/classes"
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
    """Parameters of the largest module that `max_size` allows, or of the source if it may be taken whole, without the
    head; None while the source is validating."""


@dataclass(frozen=True)
class Named:
    """A job's parameters with the names of classes that the source has."""

    config: CloneConfig
    """Names that the source does not know stay as they are."""
    known: tuple[str, ...]
    """Classes of the source."""
    problems: list[Problem]
    """One for each name that the source does not know, at most `MOST_REFUSED`."""


def named(source: VersionRow, config: CloneConfig) -> Named:
    """Replace other names and numbers of the source's classes by the names that the source has."""
    names, problems = classes.names_of(source), list[Problem]()
    given: dict[str, str] = {}
    for text in config.classes:
        try:
            name = names.find(text)
        except (UnknownClass, AmbiguousClass) as error:
            problems.append(Problem(_CLASSES, error.code, str(error)))
        else:
            if name in given:
                problems.append(Problem(_CLASSES, "repeated_class", repeated(name, given[name], text)))
            given[name] = text
        if len(problems) == MOST_REFUSED:
            break
    found = {text: name for name, text in given.items()}
    wanted = tuple(dict.fromkeys(found.get(text, text) for text in config.classes))
    return Named(replace(config, classes=wanted), tuple(given), problems)


def check(target: VersionRow, source: VersionRow, dataset: DatasetRow, asked: Named) -> list[Problem]:
    """All problems of a job; empty if the job can run as soon as both versions are ready."""
    faults = [
        *_rejected("/target", target),
        *_rejected("/source", source),
        *asked.problems,
        *_new_to(target, asked.config),
        *_protected(source, asked.known),
        *_archived(dataset),
        *_images(target, dataset, asked),
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
    share = max(config.size_limit, 1.0) if config.may_grow else config.size_limit
    parameters = None if source.parameters is None else int(source.parameters * share)
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


def _new_to(target: VersionRow, config: CloneConfig) -> Iterator[Problem]:
    present = set(target.spec["classes"])
    for name in config.classes:
        if name in present:
            detail = f"expected classes that {target.ref} does not have, got {name!r:.80}; leave this class out"
            yield Problem(_CLASSES, "class_in_target", detail)


def check_clonable(source: VersionRow, config: CloneConfig) -> None:
    """Check that the source's owner allows these classes to be cloned.

    A worker calls this before it clones, because the owner may have changed the list since the job was submitted.

    Raises:
        Invalid: the owner does not allow a class.
    """
    faults = list(_protected(source, config.classes))
    if faults:
        raise Invalid(faults)


def _protected(source: VersionRow, wanted: Sequence[str]) -> Iterator[Problem]:
    allowed = source.model.clonable
    if allowed is None:
        return
    meant = classes.meant(source, allowed)
    for name in wanted:
        if name not in meant:
            names = _some(allowed) if allowed else "none"
            detail = (
                f"expected classes that the owner of {source.model.name} allows to be cloned ({names}), got {name!r}; "
                "ask the owner"
            )
            yield Problem(_CLASSES, "not_clonable", detail)


def _images(target: VersionRow, dataset: DatasetRow, asked: Named) -> Iterator[Problem]:
    counts: Mapping[str, int] = dataset.counts
    config = asked.config
    if not config.labels:  # the class of an image is known only after the networks have predicted it
        needed = len(config.classes) + (len(target.spec["classes"]) if config.old_images else 0)
        images = dataset.rows - dataset.unreadable
        if images < MIN_IMAGES * needed:
            detail = f"expected at least {MIN_IMAGES} images of each of {needed} classes, got {images} images"
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
    least = config.min_images
    for name in asked.known:
        if counts.get(name, 0) < least:
            yield Problem(
                "/dataset",
                "too_few_images",
                f"expected at least {least} images of class {name!r} in {dataset.id}, got {counts.get(name, 0)}; "
                "add images",
            )
    short = [name for name in target.spec["classes"] if counts.get(name, 0) < least]
    if config.old_images and short:
        yield Problem(
            "/dataset",
            "too_few_old_images",
            f"expected at least {least} images of each of the target's {len(target.spec['classes'])} classes in "
            f"{dataset.id}, got fewer of {_some(short)}; add images, or set old_images to false if there are none",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else "")
