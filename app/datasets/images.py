"""Encoded images to pixels, for workers and serving alike."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pnc_core.errors import DataError
from pnc_core.fitting import MAX_PIXELS, fit_image, mode_of
from pnc_core.preprocessing import Geometry

FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes of 8 bits a channel or fewer."""
_DEEP = ("I;16", "I;16B", "I;16L", "I")
"""Its modes of a PNG of 16-bit greys."""


def decode_image(raw: bytes, geometries: Sequence[Geometry], where: str) -> list[NDArray[np.uint8]]:
    """An encoded image as networks see it, decoded once; greys of 16 bits are scaled to 8.

    Args:
        raw: The file's bytes: PNG, JPEG or WebP.
        geometries: How each network wants the image.
        where: Names the image in messages.

    Returns:
        uint8 (C, H, W) for each geometry.

    Raises:
        DataError: the bytes are not such an image, or a far too large one.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{where}: expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height}")
            shallow = _shallow(image, where)
            modes = {mode_of(geometry): shallow.convert(mode_of(geometry)) for geometry in geometries}
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        kind = type(error).__name__
        raise DataError(f"{where}: expected a {', '.join(FORMATS)} image, got {len(raw)} bytes ({kind})") from None
    try:
        return [fit_image(modes[mode_of(geometry)], geometry) for geometry in geometries]
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _shallow(image: Image.Image, where: str) -> Image.Image:
    """The image with at most 8 bits a channel; Pillow's own conversion would cut off what is brighter than 255."""
    if image.mode in _DEEP:
        greys = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((greys * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode not in _MODES:
        raise DataError(
            f"{where}: expected greys or colours of 8 or 16 bits, got an image of mode {image.mode}; convert it to RGB"
        )
    return image
