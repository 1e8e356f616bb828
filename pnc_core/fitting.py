"""Decoded images to 8-bit pixels of a network's size, without torch: serving decodes images in small processes.

Pillow resizes, as it does in the transforms of torchvision and timm of Pillow images: the pixels are equal.
Pillow cannot resize without antialiasing as torch does it, so numpy does.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pnc_core.errors import DataError
from pnc_core.preprocessing import Geometry

MAX_PIXELS = 64 * 1024 * 1024
"""Pixels of an image, also after it was resized and before it is cropped."""
_CUBIC = -0.75
"""Parameter of torch's bicubic interpolation without antialiasing."""
Pixels = NDArray[np.uint8]


def fit_image(image: Image.Image, geometry: Geometry) -> Pixels:
    """Resize and crop an image as a network wants it.

    Args:
        image: 8 bits a channel, any mode that Pillow converts to RGB and L; not changed.
        geometry: Channels (1: grey, 3: colour), size and rules.

    Returns:
        uint8 (C, H, W).

    Raises:
        DataError: the image would have more than `MAX_PIXELS` pixels before the crop.
    """
    _, height, width = geometry.size
    mode = mode_of(geometry)
    plain = image if image.mode == mode else image.convert(mode)
    size = resized(geometry, plain.height, plain.width)
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"expected at most {MAX_PIXELS} pixels once its shorter side has {min(size)}, got "
            f"{plain.width} x {plain.height}; crop the image"
        )
    pixels = np.asarray(_resize(plain, size, geometry), dtype=np.uint8).reshape(*size, -1)
    top, left = (crop_start(whole, part) for whole, part in zip(size, (height, width), strict=True))
    cropped = pixels[top : top + height, left : left + width]
    return np.array(cropped.transpose(2, 0, 1), order="C")


def mode_of(geometry: Geometry) -> str:
    """Pillow's name of a network's colours: grey for one channel."""
    return "L" if geometry.size[0] == 1 else "RGB"


def resized(geometry: Geometry, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image of the given size before the crop, rounded as torchvision rounds them."""
    wanted = geometry.resize_size
    if isinstance(wanted, int):
        short, long = sorted((height, width))
        longer = int(wanted * long / short)
        return (wanted, longer) if height <= width else (longer, wanted)
    return wanted or (geometry.size[1], geometry.size[2])


def crop_start(whole: int, part: int) -> int:
    """First row or column of a centre crop, rounded as torchvision rounds it."""
    return round((whole - part) / 2)


def _resize(image: Image.Image, size: tuple[int, int], geometry: Geometry) -> Image.Image | Pixels:
    if (image.height, image.width) == size:
        return image
    if not geometry.antialias and geometry.interpolation != "nearest":
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        for axis in (0, 1):
            pixels = _sampled(pixels, size[axis], axis, cubic=geometry.interpolation == "bicubic")
        return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)
    return image.resize(size[::-1], Image.Resampling[geometry.interpolation.upper()])


def _sampled(pixels: NDArray[np.generic], count: int, axis: int, *, cubic: bool) -> NDArray[np.float32]:
    """Interpolate along one axis between the 2 (`cubic`: 4) nearest pixels; edges are repeated."""
    length = pixels.shape[axis]
    places = (np.arange(count, dtype=np.float64) + 0.5) * (length / count) - 0.5
    if not cubic:
        places = places.clip(0)
    first = np.floor(places).astype(np.int64)
    share = (places - first).astype(np.float32)
    taps = [-1, 0, 1, 2] if cubic else [0, 1]
    weights = [_cubic(share - tap) for tap in taps] if cubic else [1 - share, share]
    shape = [1, 1, 1]
    shape[axis] = count
    parts = (
        pixels.take((first + tap).clip(0, length - 1), axis).astype(np.float32) * weight.reshape(shape)
        for tap, weight in zip(taps, weights, strict=True)
    )
    return np.asarray(sum(parts), dtype=np.float32)


def _cubic(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weight of a pixel at this distance (Keys, 1981)."""
    x, a = np.abs(distance), _CUBIC
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, far).astype(np.float32)


def fit_each(images: Pixels, geometry: Geometry) -> Pixels:
    """`fit_image` for decoded images uint8 (N, C, H, W) with one or three channels; returns (N, *geometry.size)."""
    rows = (Image.fromarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0)) for one in images)
    return np.stack([fit_image(row, geometry) for row in rows])
