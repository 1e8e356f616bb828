"""Encoded images to pixels, for workers and serving alike."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pnc_core.errors import DataError

MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before they are decoded."""
FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes of 8 bits a channel or fewer."""
_DEEP = ("I;16", "I;16B", "I;16L", "I")
"""Its modes of a PNG of 16-bit greys."""


def decode_image(raw: bytes, size: tuple[int, int, int], where: str) -> NDArray[np.uint8]:
    """An encoded image as uint8 (C, H, W); greys of 16 bits are scaled to 8.

    Args:
        raw: The file's bytes: PNG, JPEG or WebP.
        size: Channels (1: grey, 3: colour), height and width that it is brought to.
        where: Names the image in messages.

    Raises:
        DataError: the bytes are not such an image, or a far too large one.
    """
    channels, height, width = size
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{where}: expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height}")
            plain = _shallow(image, where).convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        kind = type(error).__name__
        raise DataError(f"{where}: expected a {', '.join(FORMATS)} image, got {len(raw)} bytes ({kind})") from None
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.array(plain, dtype=np.uint8).reshape(height, width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


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
