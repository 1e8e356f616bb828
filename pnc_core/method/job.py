"""A prepared cloning job: two traced networks, the images split for training and validation, and seeded randomness."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from pnc_core.class_names import ClassNames, resolved
from pnc_core.config import MIN_IMAGES, CloneConfig, Position
from pnc_core.devices import full_precision, precision_of
from pnc_core.errors import Cancelled, ConfigError, DataError, NetworkError
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import INPUT, Traced
from pnc_core.images import ImageSet, Views, augment, batches, preprocess
from pnc_core.method.checkpoints import Checkpoints, NoCheckpoints
from pnc_core.method.localize import Scores
from pnc_core.module.adapter import Adapter
from pnc_core.module.tail import Tail
from pnc_core.module.watermark import Mark
from pnc_core.tensorfile import MAX_NAME, is_plain


@dataclass(frozen=True)
class Progress:
    """One report of a running job."""

    stage: str
    """`screening`, `inserting`, `refining` or `calibrating`."""
    done: float
    """Share of the whole job that is done, 0..1."""
    message: str
    data: dict[str, object] = field(default_factory=dict)
    """Figures of the step, such as a trial's scores."""


MOST_NAMED = 3
"""Class names that an error shows."""
EXPENSIVE_MACS = 250_000_000
"""Multiply-accumulates per image of target and source together, from which the preset `fast` searches less. Own choice:
pairs for images of 32 pixels lie below, most pairs for 224 pixels lie above."""
Report = Callable[[Progress], None]
Watch = Callable[[str], AbstractContextManager[object]]
"""Takes the name of a piece of work, returns a context manager. The piece runs inside it, once or more per job."""
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Job:
    """Inputs of every step of the method. Nothing in it is changed."""

    target: Traced
    source: Traced
    config: CloneConfig
    train: ImageSet
    """Training images. Labels count old classes first, then cloned classes."""
    validation: ImageSet
    """Held-out images for choosing position and head."""
    report: Report
    cancelled: Callable[[], bool]
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    watch: Watch = nullcontext
    mark: Mark | None = None
    images: ImageSet | None = None
    """All images, without copies: those for training and those held out."""
    held: Tensor | None = None
    """Which of all images are held out, bool (N,); None if none are."""

    @property
    def every(self) -> ImageSet:
        """All images of the job."""
        return self.train if self.images is None else self.images

    @property
    def is_split(self) -> bool:
        """Whether images are held out. A class of one or two different images cannot be divided."""
        return self.held is not None

    @property
    def old_classes(self) -> int:
        """Number of the target's classes."""
        return len(self.target.spec.classes)

    @property
    def cloned(self) -> tuple[int, ...]:
        """Indices of the cloned classes among the source's logits."""
        return tuple(self.source.spec.classes.index(c) for c in self.config.classes)

    @functools.cached_property
    def is_economical(self) -> bool:
        """Whether the job searches less, because its preset is `fast` and its networks are expensive (decision 120)."""
        return self.config.preset == "fast" and self.target.macs + self.source.macs >= EXPENSIVE_MACS

    def generator(self, *purpose: object) -> torch.Generator:
        """A random generator for one purpose, seeded by the job's seed and the purpose.

        Draws for other purposes do not change its numbers.
        """
        text = "|".join(map(str, (self.config.seed, *purpose)))
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        return torch.Generator().manual_seed(seed % 2**63)

    def checkpoint(self) -> None:
        """Stop here if the caller has cancelled the job; called between steps.

        Raises:
            Cancelled: the caller's callback returned True.
        """
        if self.cancelled():
            raise Cancelled("the job was cancelled")

    def importance_bias(self, tail: Tail) -> Scores | None:
        """The watermark's bias on the ranks of a tail's channels, by group; None without a watermark."""
        return None if self.mark is None else self.mark.importance_bias(tail.groups)

    def autocast(self) -> AbstractContextManager[object]:
        """A context manager in which networks run in the job's precision."""
        wanted = self.config.precision == "bfloat16"
        return torch.autocast(self.target.device.type, torch.bfloat16, enabled=wanted)

    def read(
        self,
        images: ImageSet,
        augmented: torch.Generator | None = None,
        *,
        target: Reader | None = None,
        source: Reader | None = None,
        exact: bool = False,
    ) -> "Iterator[Batch]":
        """Both networks' logits and activations, batch by batch, without gradients.

        Args:
            images: The images, read in order unless `augmented` is given.
            augmented: If given, the images come in random order, as augmented views.
            target: Reads the target; None: logits and all positions.
            source: Reads the source; None: logits and all positions.
            exact: Use float32, whatever the job's precision.
        """
        of_target = target or Reader(self.target, [p.name for p in self.target.positions])
        of_source = source or Reader(self.source, [p.name for p in self.source.positions])
        for index in batches(len(images), self.config.batch_size, augmented):
            self.checkpoint()
            views = images.views[index]
            if augmented is not None:
                views = augment(views, self.config.augment, augmented)
            with torch.no_grad(), full_precision() if exact else self.autocast():
                old, phi = of_target(enter(views, self.target))
                every, psi = of_source(enter(views, self.source))
            own = every[:, list(self.cloned)] if every.shape[1] else every
            labels = images.labels[index].to(old.device)
            yield Batch(old.float(), phi, own.float(), psi, labels, every.float())


def traced_step(name: str) -> Callable[[Callable[Concatenate[Job, P], R]], Callable[Concatenate[Job, P], R]]:
    """Decorator: run the function inside `job.watch(name)`. The function's first argument is the job."""

    def named(work: Callable[Concatenate[Job, P], R]) -> Callable[Concatenate[Job, P], R]:
        @wraps(work)
        def watched(job: Job, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with job.watch(name):
                return work(job, *args, **kwargs)

        return watched

    return named


@dataclass(frozen=True)
class Batch:
    """Logits and activations of both frozen networks for one batch of images."""

    old: Tensor
    """The target's logits (N, N_old), or (N, 0) if they were not read."""
    target: dict[str, Tensor]
    """The target's activations by position."""
    own: Tensor
    """The source's logits of the cloned classes (N, K), or (N, 0) if they were not read."""
    source: dict[str, Tensor]
    """The source's activations by position."""
    labels: Tensor
    """int64 (N,): old classes first, then the cloned ones."""
    every: Tensor
    """The source's logits of all its classes (N, C), or (N, 0) if they were not read."""

    def phi(self, position: Position, adapter: Adapter) -> Tensor:
        """The tensor that an adapter at this pair of positions takes."""
        return self.source[INPUT] if adapter.resize == "image" else self.target[position.target]


def enter(images: Tensor | Views, network: Traced) -> Tensor:
    """Preprocess images, in channels-last format, in which convolutions are fastest."""
    x = preprocess(images, network.spec, network.device)
    return x.contiguous(memory_format=torch.channels_last)


def prepare(
    target: Traced,
    source: Traced,
    images: ImageSet,
    config: CloneConfig,
    report: Report,
    cancelled: Callable[[], bool],
    checkpoints: Checkpoints | None = None,
) -> Job:
    """Check that the parts of a job fit together and split the images.

    Raises:
        ConfigError: a class cannot be cloned.
        DataError: images of a class are missing.
        NetworkError: the networks are on different devices, a network has no position except the image, or a module's
            name cannot be stored in a bundle.
    """
    _check_devices(target.device, source.device)
    config = resolved(config, ClassNames(source.spec.classes, source.spec.class_aliases))
    config = replace(config, precision=precision_of(config.precision, target.device))
    _check_classes(target.spec.classes, config.classes)
    _check_names(source)
    _check_taps(target, "target")
    _check_taps(source, "source")
    job_classes = (*target.spec.classes, *config.classes)
    job = Job(target, source, config, images, images, report, cancelled, checkpoints or NoCheckpoints())
    least = config.min_images
    used = images.only(job_classes) if config.labels else name_images(job, images.views)
    if not config.old_images:
        used = used.take(torch.nonzero(used.labels >= job.old_classes).flatten())
    needed = range(0 if config.old_images else job.old_classes, len(job_classes))
    missing = [job_classes[i] for i in needed if int((used.labels == i).sum()) < least]
    if missing:
        wanted = "every old and cloned class" if config.old_images else "every cloned class"
        named = "" if config.labels else ", as the two networks label them,"
        raise DataError(
            f"images: expected at least {least} of {wanted}{named} got fewer of {_some(missing)}; add some"
            + ("" if not config.old_images else ", or set old_images=False if you have no images of old classes")
        )
    given, used = len(used), used.without_copies()
    if len(used) < given:
        report(Progress("screening", 0.0, f"{given - len(used):,} of {given:,} images are copies and are left out"))
    if config.may_grow and int(torch.bincount(used.labels).min()) < MIN_IMAGES:
        return replace(job, train=used, validation=used, images=used)
    held = used.held_out(config.validation, job.generator("split"))
    train, validation = (used.take(torch.nonzero(rows).flatten()) for rows in (~held, held))
    return replace(job, train=train, validation=validation, images=used, held=held)


def _check_taps(traced: Traced, side: str) -> None:
    """Check that a head can read the network.

    Raises:
        NetworkError: no layer's output carries all data.
    """
    if not traced.taps:
        raise NetworkError(
            f"{side}: expected a layer through which all data pass on their way to the logits, got parallel branches "
            "from the image to the logits; join them before the last layer"
        )


def name_images(job: Job, images: Tensor | Views) -> ImageSet:
    """Label images that have no labels, by the larger of the two networks' probabilities:

        y(x) = argmax over old classes c of softmax(target(x))_c and cloned classes c of softmax(source(x))_c

    The source's softmax covers all its classes: over a single cloned class the probability would always be 1. If the
    job has no images of old classes, only the cloned classes compete. Own choice.
    """
    readers = Reader(job.target, []), Reader(job.source, [])
    labels = []
    for index in batches(len(images), job.config.batch_size):
        job.checkpoint()
        with torch.no_grad(), job.autocast():
            old, own = (
                reader(enter(images[index], network))[0].float().softmax(1).cpu()
                for reader, network in zip(readers, (job.target, job.source), strict=True)
            )
        old = old if job.config.old_images else torch.full_like(old, -1)
        labels.append(torch.cat([old, own[:, list(job.cloned)]], dim=1).argmax(1))
    classes = (*job.target.spec.classes, *job.config.classes)
    views = Views.of(images)
    return ImageSet(views.plain, torch.cat(labels), classes, views.fitted)


def _check_names(source: Traced) -> None:
    """Check that the source's module names can be stored: a bundle uses them as names of tensors."""
    odd = [name for name, _ in source.graph_module.named_modules() if name and not is_plain(name)]
    if odd:
        raise NetworkError(
            f"source: expected modules named with up to {MAX_NAME} letters, digits and `_ . - /`, got {odd[0]!r}; "
            "rename it"
        )


def _some(names: list[str]) -> str:
    return f"{names[:MOST_NAMED]}" + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _check_devices(target: torch.device, source: torch.device) -> None:
    if target != source:
        raise NetworkError(f"networks: expected both on one device, got {target} and {source}; move one with .to()")


def _check_classes(old: tuple[str, ...], cloned: tuple[str, ...]) -> None:
    present = [c for c in cloned if c in old]
    if present:
        raise ConfigError(f"classes: expected classes the target does not have, got {present}")
