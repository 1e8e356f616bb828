"""Images and labels as tensors, and how they enter a network."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Augmentation, NetworkSpec, geometries_of
from pnc_core.errors import DataError
from pnc_core.fitting import crop_start, fit_each, fit_image, resized
from pnc_core.preprocessing import Geometry
from pnc_core.reading import flattened

EVALUATION_BATCH = 256
"""Images in one batch where nothing is learned."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey: ITU-R 601-2, as Pillow converts."""
PILLOW_ONLY = ("box", "hamming", "lanczos")
"""Interpolations that torch does not have."""


@dataclass(frozen=True)
class Views:
    """The same images as several networks see them."""

    plain: Tensor
    """(N, C, H, W): uint8 images, or float32 that is the input of a network."""
    fitted: Mapping[Geometry, Tensor] = field(default_factory=dict)
    """uint8 (N, *geometry.size), made from the image files: for networks that see other pixels than `plain`."""

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, rows: "slice | Tensor") -> "Views":
        return self.map(lambda images: images[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Views":
        """Change every tensor alike."""
        return Views(change(self.plain), {geometry: change(images) for geometry, images in self.fitted.items()})

    @classmethod
    def of(cls, images: "Tensor | Views") -> "Views":
        """Images alone as views."""
        return images if isinstance(images, Views) else cls(images)

    @staticmethod
    def cat(parts: "Sequence[Views]") -> "Views":
        """All images of parts that have the same geometries, one part after another."""
        if len(parts) == 1:
            return parts[0]
        fitted = {geometry: torch.cat([part.fitted[geometry] for part in parts]) for geometry in parts[0].fitted}
        return Views(torch.cat([part.plain for part in parts]), fitted)

    def seen_by(self, spec: NetworkSpec) -> Tensor:
        """The pixels that `preprocess` makes the input of this network of."""
        return self.fitted.get(spec.geometry, self.plain)


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
    fitted: Mapping[Geometry, Tensor] = field(default_factory=dict)
    """The same images for networks that see other pixels than `images`: uint8 (N, *geometry.size) of each geometry."""

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

        for geometry, fitted in self.fitted.items():
            expected = (len(images), *geometry.size)
            if fitted.dtype != torch.uint8 or fitted.shape != expected:
                raise DataError(f"fitted: expected uint8 {expected}, got {fitted.dtype} {tuple(fitted.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def views(self) -> Views:
        """The images without labels."""
        return Views(self.images, self.fitted)

    def only(self, classes: Sequence[str]) -> "ImageSet":
        """The images of the given classes, relabelled in the order given; other images are left out."""
        table = torch.full((len(self.classes),), -1)
        for new, name in enumerate(classes):
            if name in self.classes:
                table[self.classes.index(name)] = new
        labels = table[self.labels]
        kept = self.views[labels >= 0]
        return ImageSet(kept.plain, labels[labels >= 0], tuple(classes), kept.fitted)

    def take(self, indices: Tensor) -> "ImageSet":
        """The images at int64 `indices`."""
        views = self.views[indices]
        return ImageSet(views.plain, self.labels[indices], self.classes, views.fitted)

    @functools.cached_property
    def groups(self) -> Tensor:
        """int64 (N,): equal numbers for images with exactly the same pixels, counted from 0 in order of appearance."""
        known: dict[bytes, int] = {}
        rows = self.images.flatten(1).numpy()
        digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
        return torch.tensor([known.setdefault(digest, len(known)) for digest in digests], dtype=torch.int64)

    def without_copies(self) -> "ImageSet":
        """The first image of those with equal pixels and equal labels, in order."""
        keys = self.groups * max(1, len(self.classes)) + self.labels
        _, inverse = keys.unique(return_inverse=True)
        first = torch.full((int(inverse.max()) + 1 if len(self) else 0,), len(self))
        first = first.scatter_reduce(0, inverse, torch.arange(len(self)), "amin")
        return self if len(first) == len(self) else self.take(first.sort().values)

    def split(self, share: float, generator: torch.Generator) -> tuple["ImageSet", "ImageSet"]:
        """The two parts that `held_out` makes: images that are not held out, and images that are."""
        held = self.held_out(share, generator)
        return self.take(torch.nonzero(~held).flatten()), self.take(torch.nonzero(held).flatten())

    def held_out(self, share: float, generator: torch.Generator) -> Tensor:
        """Which images to hold out, bool (N,): about `share` of every class that has images.

        Equal images stay together. Of two different images of a class or more, one at least is held out, and one at
        least is not; of three or more, two at least are not.

        Raises:
            DataError: a class has a single image, or only copies of one.
        """
        held = torch.zeros(len(self), dtype=torch.bool)
        taken: set[int] = set()
        for index, name in enumerate(self.classes):
            members = torch.nonzero(self.labels == index).flatten()
            order = members[torch.randperm(len(members), generator=generator)]
            groups = list(dict.fromkeys(self.groups[order].tolist()))
            if len(groups) == 1:
                raise DataError(
                    f"class {name!r}: expected at least 2 different images, got {len(members)} image(s) with the same "
                    "pixels; add images of it"
                )
            wanted, most = max(1, round(share * len(members))), max(1, len(groups) - 2)
            sizes = torch.bincount(self.groups[members], minlength=max(groups, default=0) + 1)
            count = 0
            for number in groups[:most]:
                if count >= wanted:
                    break
                taken.add(number)
                count += int(sizes[number])
        if taken:
            held = torch.isin(self.groups, torch.tensor(sorted(taken)))
        return held

    def sample(self, count: int, generator: torch.Generator) -> "ImageSet":
        """About `count` random images at most: the same share of every class, but at least two of each."""
        chosen = []
        for index in range(len(self.classes)):
            members = torch.nonzero(self.labels == index).flatten()
            share = max(2, round(count * len(members) / max(1, len(self))))
            chosen.append(members[torch.randperm(len(members), generator=generator)[:share]])
        return self.take(torch.cat(chosen).sort().values)


def preprocess(images: "Tensor | Views", spec: NetworkSpec, device: torch.device | str = "cpu") -> Tensor:
    """Pixels to the input of a network.

    Images that already have the network's height and width are taken as resized and cropped. For other images the
    spec's preprocessing is applied, see `fit`. The default preprocessing resizes in float32 and does not round.

    Args:
        images: uint8 (N, C, H, W), or views of the images; one channel is repeated where the network takes three,
            and three become grey where it takes one.
        spec: Input size, preprocessing, mean and standard deviation of the network.
        device: Where the result lies.

    Returns:
        float32 (N, *spec.input_size), normalised.

    Raises:
        DataError: the number of channels does not fit.
    """
    pixels = images.seen_by(spec) if isinstance(images, Views) else images
    rule, geometry = spec.preprocessing, spec.geometry
    if pixels.shape[2:] != spec.input_size[1:] and not geometry.is_plain:
        pixels = fit(pixels, geometry)
    x = _with_channels(pixels.to(device).float() / 255, spec.input_size[0])
    if x.shape[2:] != spec.input_size[1:]:
        x = F.interpolate(x, spec.input_size[1:], mode="bilinear", antialias=True)
    if rule.channel_order == "bgr":
        x = x.flip(1)
    if rule.value_range == "0..255":
        x = x * 255
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (spec.mean, spec.std))
    return (x - mean) / std


def views_of(image: Image.Image, specs: Iterable[NetworkSpec]) -> Views:
    """A Pillow image as networks see it; `plain` is as the first network sees it.

    Args:
        image: As Pillow opens it; `pnc_core.reading` says how orientation, transparency and 16 bits are read. It is
            not changed.
        specs: Of the networks, for example `Composed.sees`.

    Raises:
        DataError: the image has another mode, or would be too large before the crop.
    """
    geometries, upright = geometries_of(specs), flattened(image)
    plain, *others = (torch.from_numpy(fit_image(upright, geometry))[None] for geometry in geometries)
    return Views(plain, dict(zip(geometries[1:], others, strict=True)))


def to_pixels(x: Tensor, spec: NetworkSpec) -> Tensor:
    """The input of a network back to RGB or grey pixels 0..255, float32 (N, C, H, W): `preprocess` without resizing."""
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (spec.mean, spec.std))
    pixels = x.float() * std + mean
    if spec.preprocessing.value_range == "0..1":
        pixels = pixels * 255
    return pixels.flip(1) if spec.preprocessing.channel_order == "bgr" else pixels


def _with_channels(x: Tensor, channels: int) -> Tensor:
    """Grey images as colour images, or colour images as grey ones, where the network wants the other kind.

    Raises:
        DataError: neither fits.
    """
    if x.shape[1] == 1 and channels == 3:
        return x.expand(-1, 3, -1, -1)
    if x.shape[1] == 3 and channels == 1:
        return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    if x.shape[1] != channels:
        raise DataError(f"images: expected {channels} channels, got {x.shape[1]}; convert the images")
    return x


def fit(images: Tensor, geometry: Geometry) -> Tensor:
    """Resize and crop decoded images as a network wants them, whatever size they have.

    Pillow resizes uint8 images on the processor: the pixels equal those of the image files. Elsewhere torch resizes,
    in float32 and without rounding between the two axes; box, Hamming and Lanczos interpolation stay Pillow's.

    Args:
        images: uint8, or float 0..255, (N, C, H, W); not changed.
        geometry: Of the network's spec. Its channels are ignored.

    Returns:
        (N, C, height, width) in the dtype and on the device of `images`.

    Raises:
        DataError: only Pillow has this interpolation, and the images are not uint8 with one or three channels.
    """
    channels, (height, width) = images.shape[1], geometry.size[1:]
    by_pillow = images.device.type == "cpu" or geometry.interpolation in PILLOW_ONLY
    if by_pillow and images.dtype == torch.uint8 and channels in (1, 3) and not torch.compiler.is_compiling():
        pixels = fit_each(images.cpu().numpy(), replace(geometry, size=(channels, height, width)))
        return torch.from_numpy(pixels).to(images.device)
    size = resized(geometry, images.shape[2], images.shape[3])
    if tuple(images.shape[2:]) != size:
        images = _interpolated(images, size, geometry)
    top, left = crop_start(size[0], height), crop_start(size[1], width)
    return images[:, :, top : top + height, left : left + width]


def _interpolated(images: Tensor, size: tuple[int, int], geometry: Geometry) -> Tensor:
    how = geometry.interpolation
    if how in PILLOW_ONLY:
        raise DataError(f"images: expected uint8 images of 1 or 3 channels for {how} interpolation, got {images.dtype}")
    if how == "nearest":
        return F.interpolate(images.float(), size, mode="nearest-exact").to(images.dtype)
    x = F.interpolate(images.float(), size, mode=how, antialias=geometry.antialias).clamp(0, 255)
    return x if images.is_floating_point() else x.round().to(images.dtype)


Images = TypeVar("Images", Tensor, Views)


def augment(images: Images, kind: Augmentation, generator: torch.Generator) -> Images:
    """Another view of every image: shifted by whole pixels, edges repeated, perhaps mirrored.

    The networks have often seen the very images of a job in their own training and
    are surer of them than of new ones; views keep heads from trusting that.

    Args:
        images: uint8 (N, C, H, W), or views, which are all moved by the same share of their size; not changed.
        kind: `none` returns the images as they are.
        generator: Draws shifts and mirrorings.
    """
    if kind == "none":
        return images
    plain = images.plain if isinstance(images, Views) else images
    count, _, *size = plain.shape
    across, down = (_shifts(count, length, generator) for length in reversed(size))
    mirrored = torch.zeros(count, 1, dtype=torch.bool)
    if kind == "shift-flip":
        mirrored = torch.randint(0, 2, (count, 1), generator=generator).bool()

    def moved(view: Tensor) -> Tensor:
        height, width = view.shape[2:]
        rows, columns = _places(down, size[0], height), _places(across, size[1], width)
        columns = torch.where(mirrored, columns.flip(1), columns)
        every = torch.arange(count)[:, None, None]
        return view.movedim(1, -1)[every, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)

    return images.map(moved) if isinstance(images, Views) else moved(images)


def _shifts(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Pixels that every image is shifted by, (N, 1): up to an eighth of its size."""
    most = max(1, size // 8)
    return torch.randint(-most, most + 1, (count, 1), generator=generator)


def _places(shifts: Tensor, size: int, length: int) -> Tensor:
    """Which row (or column) comes where, (N, length), in a view of `length` of images shifted in one of `size`."""
    shift = shifts if length == size else (shifts * length / size).round().long()
    return (torch.arange(length) + shift).clamp(0, length - 1)


def batches(count: int, size: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Index batches over `count` images: in order, or shuffled when a generator is given."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    yield from order.split(size)
