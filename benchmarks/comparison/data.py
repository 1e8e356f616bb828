"""The images of every suite. A seed divides the classes between target and source.

Torchvision's classes read MNIST and CIFAR from a data root. Tiny-ImageNet is read from two Parquet files in it,
`tiny-imagenet-40-train.parquet` and `tiny-imagenet-40-val.parquet`, in the layout of the Hugging Face Hub. The digits
are a part of scikit-learn. In the suite `public` a target of ten classes of CIFAR-100 gets three classes of CIFAR-10,
and the source is a network that somebody else trained and published (`benchmarks.comparison.zoo`).
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.datasets.service import inspect
from app.evidence.images import read_images
from pnc_core.config import NetworkSpec
from pnc_core.images import ImageSet
from pnc_core.vision import torchvision_datasets

DEVELOPMENT_SEED = 1000
"""Splits with this seed or a larger one serve to choose settings: their test images are held-out training images."""
DIGITS_TEST_SEED = 0
"""Seed that draws the test images of the digits; all splits have the same test images."""


@dataclass(frozen=True)
class Suite:
    """A data set with the architecture, class counts and budgets of its benchmark."""

    name: str
    architecture: str
    width: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    target_classes: int
    source_classes: int
    cloned_classes: int
    zoo_epochs: int
    """Training epochs of targets and sources."""
    images: int
    """Training budget: images that a baseline sees over all epochs (more where 5 epochs see more)."""
    augment: str


CIFAR_MEAN, CIFAR_STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
TINY_MEAN, TINY_STD = (0.480, 0.448, 0.398), (0.277, 0.269, 0.282)
TINY = "tiny-imagenet-40-{part}.parquet"
SUITES = {
    suite.name: suite
    for suite in (
        Suite("digits", "cnn", 32, (1, 8, 8), (0.3,), (0.37,), 5, 5, 5, 40, 30_000, "shift"),
        Suite("mnist", "cnn", 16, (1, 28, 28), (0.131,), (0.308,), 5, 5, 5, 3, 60_000, "shift"),
        Suite("cifar10", "resnet20", 16, (3, 32, 32), CIFAR_MEAN, CIFAR_STD, 5, 5, 5, 14, 120_000, "shift-flip"),
        Suite("cifar100", "resnet20", 16, (3, 32, 32), CIFAR_MEAN, CIFAR_STD, 50, 50, 10, 16, 120_000, "shift-flip"),
        Suite("public", "resnet20", 16, (3, 32, 32), CIFAR_MEAN, CIFAR_STD, 10, 10, 3, 40, 120_000, "shift-flip"),
        Suite("tiny20", "resnet20", 16, (3, 64, 64), TINY_MEAN, TINY_STD, 20, 20, 20, 30, 120_000, "shift-flip"),
        Suite("tiny30", "resnet20", 16, (3, 64, 64), TINY_MEAN, TINY_STD, 30, 10, 10, 30, 120_000, "shift-flip"),
    )
}


@dataclass(frozen=True)
class Split:
    """One division of a suite's classes between target and source, with the images."""

    suite: Suite
    seed: int
    target: tuple[str, ...]
    """Classes the target is trained on."""
    source: tuple[str, ...]
    """Classes the source is trained on."""
    cloned: tuple[str, ...]
    """Classes of the source that the target is to learn."""
    train: ImageSet
    test: ImageSet

    def spec(self, classes: tuple[str, ...], architecture: str | None = None) -> NetworkSpec:
        """The spec of a network of this suite for `classes`."""
        suite = self.suite
        own = architecture is None or architecture == suite.architecture
        return NetworkSpec(
            architecture=architecture or suite.architecture,
            classes=classes,
            input_size=suite.input_size,
            mean=suite.mean,
            std=suite.std,
            options={"width": suite.width} if own else {},
        )

    def sample(self, fraction: float) -> ImageSet:
        """Draw the share of the training images of old and cloned classes that methods may learn from."""
        images = self.train.only((*self.target, *self.cloned))
        generator = torch.Generator().manual_seed(self.seed)
        return images if fraction == 1 else images.sample(round(fraction * len(images)), generator)

    @property
    def judged(self) -> ImageSet:
        """Test images of old and cloned classes, old classes first."""
        return self.test.only((*self.target, *self.cloned))


def load(name: str, root: Path | None, seed: int) -> Split:
    """Load the images of a suite; `seed` divides the classes at random.

    With a seed of `DEVELOPMENT_SEED` or more, a fifth of the training images replaces the test images.
    """
    suite = SUITES[name]
    train, test = _whole(name, root)
    if seed >= DEVELOPMENT_SEED:
        train, test = train.split(0.2, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    known = _whole("cifar10", root)[0].classes if name == "public" else ()
    others = [name for name in train.classes if name not in known]
    classes = [others[i] for i in torch.randperm(len(others), generator=generator).tolist()]
    target = tuple(classes[: suite.target_classes])
    if name == "public":
        cloned = tuple(known[i] for i in torch.randperm(len(known), generator=generator)[: suite.cloned_classes])
        return Split(suite, seed, target, known, cloned, train, test)
    source = tuple(classes[suite.target_classes : suite.target_classes + suite.source_classes])
    return Split(suite, seed, target, source, source[: suite.cloned_classes], train, test)


@functools.cache
def _whole(name: str, root: Path | None) -> tuple[ImageSet, ImageSet]:
    """All training images and all test images."""
    if name == "digits":
        test, train = _digits().split(0.75, torch.Generator().manual_seed(DIGITS_TEST_SEED))
        return train, test
    if root is None:
        raise SystemExit(
            f"--data-root: expected a folder for {name}, got none; name one (an empty folder is filled by a download)"
        )
    if name.startswith("tiny"):
        files = root / TINY.format(part="train"), root / TINY.format(part="val")
        for file in files:
            if not file.is_file():
                raise SystemExit(f"--data-root: expected {file.name} in it, got no such file")
        return read_tiny(files[0]), read_tiny(files[1])
    if name == "public":
        sides = zip(_whole("cifar100", root), _whole("cifar10", root), strict=True)
        return tuple(_together(hundred, ten) for hundred, ten in sides)  # type: ignore[return-value]
    return _torchvision(name, root)


def _together(one: ImageSet, other: ImageSet) -> ImageSet:
    """Images of two sets with different classes and equal sizes."""
    labels = torch.cat([one.labels, other.labels + len(one.classes)])
    return ImageSet(torch.cat([one.images, other.images]), labels, (*one.classes, *other.classes))


def read_tiny(file: Path) -> ImageSet:
    """All images of a Parquet file at 64 x 64 pixels."""
    with file.open("rb") as opened:
        names = inspect(opened).classes
    size = NetworkSpec(architecture="resnet20", classes=names, input_size=(3, 64, 64), mean=TINY_MEAN, std=TINY_STD)
    return read_images(file, names, [size.geometry])


def _digits() -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images * 255 / 16).round().to(torch.uint8)[:, None]
    return ImageSet(images, torch.from_numpy(digits.target).long(), tuple(str(d) for d in range(10)))


def _torchvision(name: str, root: Path) -> tuple[ImageSet, ImageSet]:
    datasets = torchvision_datasets()
    kind = {"mnist": datasets.MNIST, "cifar10": _cifar10(datasets), "cifar100": datasets.CIFAR100}[name]
    parts = []
    for train in (True, False):
        found = kind(root, train=train, download=not _present(kind, root, train))
        pixels = torch.as_tensor(np.asarray(found.data))
        images = pixels[:, None] if pixels.ndim == 3 else pixels.movedim(-1, 1).contiguous()
        classes = tuple(c.split(" - ")[0] for c in found.classes)
        parts.append(ImageSet(images, torch.as_tensor(found.targets).long(), classes))
    return parts[0], parts[1]


def _present(kind: Any, root: Path, train: bool) -> bool:
    try:
        kind(root, train=train, download=False)
    except RuntimeError:
        return False
    return True


def _cifar10(datasets: Any) -> Any:
    """torchvision's CIFAR-10, which also accepts a root with only some of the five training files."""
    whole = datasets.CIFAR10

    class CIFAR10(whole):  # type: ignore[misc, valid-type]
        def _check_integrity(self) -> bool:
            folder = Path(self.root) / self.base_folder
            here = [entry for entry in whole.train_list if (folder / entry[0]).is_file()]
            if not here or not (folder / "test_batch").is_file():
                return False
            self.train_list = here
            self.meta = {**whole.meta, "md5": None}
            return True

    return CIFAR10
