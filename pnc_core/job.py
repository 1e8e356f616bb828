"""A cloning job made ready: two traced networks, the split images, and seeded randomness."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pnc_core.config import CloneConfig
from pnc_core.data import ImageSet, augment, batches, preprocess
from pnc_core.errors import Cancelled, ConfigError, DataError
from pnc_core.positions import Reader, Traced


@dataclass(frozen=True)
class Progress:
    """One report of a running job."""

    stage: str
    """`screening`, `inserting` or `calibrating`."""
    done: float
    """Share of the whole job that is done, 0..1."""
    message: str
    data: dict[str, object] = field(default_factory=dict)
    """Numbers of the step, e.g. a trial's scores."""


MIN_IMAGES = 3
"""Of every class: one is held out, and the screen needs two more to fit and to judge."""
Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Job:
    """What every step of the method works on. Nothing in it is changed."""

    target: Traced
    source: Traced
    config: CloneConfig
    train: ImageSet
    """Images to learn from; old classes first, then the cloned ones."""
    validation: ImageSet
    """Images held out to choose position and head."""
    report: Report
    cancelled: Callable[[], bool]

    @property
    def old_classes(self) -> int:
        """How many classes the target has."""
        return len(self.target.spec.classes)

    @property
    def cloned(self) -> tuple[int, ...]:
        """Indices of the cloned classes among the source's logits."""
        return tuple(self.source.spec.classes.index(c) for c in self.config.classes)

    def generator(self, *purpose: object) -> torch.Generator:
        """Randomness for one purpose: independent of what else was drawn before."""
        text = "|".join(map(str, (self.config.seed, *purpose)))
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        return torch.Generator().manual_seed(seed % 2**63)

    def checkpoint(self) -> None:
        """Between two steps.

        Raises:
            Cancelled: the caller asked to stop.
        """
        if self.cancelled():
            raise Cancelled("the job was cancelled")

    def read(self, images: ImageSet, augmented: torch.Generator | None = None) -> "Iterator[Batch]":
        """Both networks' logits and activations, batch by batch, without gradients.

        With a generator the images come in random order, as augmented views.
        """
        read_target = Reader(self.target, [p.name for p in self.target.positions])
        read_source = Reader(self.source, [p.name for p in self.source.positions])
        for index in batches(len(images), self.config.batch_size, augmented):
            self.checkpoint()
            pixels = images.images[index]
            if augmented is not None:
                pixels = augment(pixels, self.config.augment, augmented)
            with torch.no_grad():
                old, phi = read_target(preprocess(pixels, self.target.spec, self.target.device))
                own, psi = read_source(preprocess(pixels, self.source.spec, self.source.device))
            yield Batch(old, phi, own[:, list(self.cloned)], psi, images.labels[index].to(old.device))


@dataclass(frozen=True)
class Batch:
    """What both frozen networks say of one batch of images."""

    old: Tensor
    """The target's logits (N, N_old)."""
    target: dict[str, Tensor]
    """The target's activations by position."""
    own: Tensor
    """The source's logits of the cloned classes (N, K)."""
    source: dict[str, Tensor]
    """The source's activations by position."""
    labels: Tensor
    """int64 (N,): old classes first, then the cloned ones."""


def prepare(
    target: Traced,
    source: Traced,
    images: ImageSet,
    config: CloneConfig,
    report: Report,
    cancelled: Callable[[], bool],
) -> Job:
    """Check that the parts of a job fit together and split the images.

    Raises:
        ConfigError: a class cannot be cloned.
        DataError: images of a class are missing.
    """
    _check_classes(target.spec.classes, source.spec.classes, config.classes)
    job_classes = (*target.spec.classes, *config.classes)
    used = images.only(job_classes)
    missing = [name for i, name in enumerate(job_classes) if int((used.labels == i).sum()) < MIN_IMAGES]
    if missing:
        raise DataError(
            f"images: expected at least {MIN_IMAGES} of every old and cloned class, got fewer of {missing}; add some"
        )
    job = Job(target, source, config, used, used, report, cancelled)
    train, validation = used.split(config.validation, job.generator("split"))
    return Job(target, source, config, train, validation, report, cancelled)


def _check_classes(old: tuple[str, ...], source: tuple[str, ...], cloned: tuple[str, ...]) -> None:
    unknown = [c for c in cloned if c not in source]
    if unknown:
        raise ConfigError(f"classes: expected classes of the source {list(source)}, got {unknown}")
    present = [c for c in cloned if c in old]
    if present:
        raise ConfigError(f"classes: expected classes the target does not have, got {present}")
