"""Images and labels as tensors, and how they enter a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Augmentation, NetworkSpec
from pnc_core.errors import DataError

EVALUATION_BATCH = 256
"""Images in one batch where nothing is learned."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one size.

    Raises:
        DataError: shapes, dtypes or labels do not fit together.
    """

    images: Tensor
    """uint8 (N, C, H, W), 0..255."""
    labels: Tensor
    """int64 (N,), indices into `classes`."""
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise DataError(f"images: expected uint8 (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(f"labels: expected int64 ({len(images)},), got {labels.dtype} {tuple(labels.shape)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise DataError(
                f"labels: expected 0 to {len(self.classes) - 1}, got {int(labels.min())} to {int(labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, classes: Sequence[str]) -> "ImageSet":
        """The images of the given classes, relabelled in the order given; other images are left out."""
        table = torch.full((len(self.classes),), -1)
        for new, name in enumerate(classes):
            if name in self.classes:
                table[self.classes.index(name)] = new
        labels = table[self.labels]
        return ImageSet(self.images[labels >= 0], labels[labels >= 0], tuple(classes))

    def take(self, indices: Tensor) -> "ImageSet":
        """The images at int64 `indices`."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def split(self, share: float, generator: torch.Generator) -> tuple["ImageSet", "ImageSet"]:
        """Two parts, `1 - share` and `share` of every class that has images, at least one image of each in both.

        Of three images or more the first part has two at least.

        Raises:
            DataError: a class has a single image.
        """
        first, second = [], []
        for index, name in enumerate(self.classes):
            members = torch.nonzero(self.labels == index).flatten()
            if len(members) == 1:
                raise DataError(f"class {name!r}: expected at least 2 images, got {len(members)}; add images of it")
            members = members[torch.randperm(len(members), generator=generator)]
            most = max(1, len(members) - 2)
            held = min(most, max(1, round(share * len(members)))) if len(members) else 0
            first.append(members[held:])
            second.append(members[:held])
        return self.take(torch.cat(first).sort().values), self.take(torch.cat(second).sort().values)

    def sample(self, count: int, generator: torch.Generator) -> "ImageSet":
        """About `count` random images at most: the same share of every class, but at least two of each."""
        chosen = []
        for index in range(len(self.classes)):
            members = torch.nonzero(self.labels == index).flatten()
            share = max(2, round(count * len(members) / max(1, len(self))))
            chosen.append(members[torch.randperm(len(members), generator=generator)[:share]])
        return self.take(torch.cat(chosen).sort().values)


def preprocess(images: Tensor, spec: NetworkSpec, device: torch.device | str = "cpu") -> Tensor:
    """Pixels to what a network expects.

    Args:
        images: uint8 (N, C, H, W); one channel is repeated where the network takes three.
        spec: Input size, mean and standard deviation of the network.
        device: Where the result lies.

    Returns:
        float32 (N, *spec.input_size), resized bilinearly if needed, normalised.

    Raises:
        DataError: the number of channels does not fit.
    """
    channels, height, width = spec.input_size
    x = images.to(device).float() / 255
    if x.shape[1] == 1 and channels == 3:
        x = x.expand(-1, 3, -1, -1)
    if x.shape[1] != channels:
        raise DataError(f"images: expected {channels} channels, got {x.shape[1]}; convert the images")
    if x.shape[2:] != (height, width):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (spec.mean, spec.std))
    return (x - mean) / std


def augment(images: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Another view of every image: shifted by whole pixels, edges repeated, perhaps mirrored.

    The networks have often seen the very images of a job in their own training and
    are surer of them than of new ones; views keep heads from trusting that.

    Args:
        images: uint8 (N, C, H, W); not changed.
        kind: `none` returns the images as they are.
        generator: Draws shifts and mirrorings.
    """
    if kind == "none":
        return images
    count, _, height, width = images.shape
    columns, rows = (_moved(count, size, generator) for size in (width, height))
    if kind == "shift-flip":
        mirrored = torch.randint(0, 2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    every = torch.arange(count)[:, None, None]
    return images.movedim(1, -1)[every, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _moved(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Which row (or column) comes where, (N, size), when every image is shifted by up to an eighth."""
    tap_window = max(1, size // 8)
    shift = torch.randint(-tap_window, tap_window + 1, (count, 1), generator=generator)
    return (torch.arange(size) + shift).clamp(0, size - 1)


def batches(count: int, size: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Index batches over `count` images: in order, or shuffled when a generator is given."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    yield from order.split(size)
