"""Image files to 8-bit greys or colours, in one way for jobs, checks, predictions and the library.

The rules, in order:

1. Of an animation or of several pages, the first picture is read.
2. The picture is turned as the EXIF orientation says.
3. Greys of 16 bits are scaled to 8: Pillow's own conversion cuts off values above 255.
4. Transparent pixels are mixed with white, `GROUND`.
5. CMYK, palettes and other colour spaces become RGB as Pillow converts them.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from pnc_core.errors import DataError
from pnc_core.fitting import MAX_PIXELS
from pnc_core.formats import FORMATS, KNOWN, refused

GROUND = (255, 255, 255)
"""Colour behind transparent pixels. Own choice: drawings on a transparent ground are mostly dark. Pillow's conversion
to RGB would show the colour that a program happened to leave there."""
_GREYS = ("1", "L")
_COLOURS = ("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
"""Pillow's modes of 8 bits a channel or fewer without transparency, apart from greys."""
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Its modes of greys of 16 bits; `I` has 32, of which a PNG uses 16."""
_DEEPEST = 65535
_EXPECTED = f"expected an image ({KNOWN})"


def read_image(raw: bytes) -> Image.Image:
    """Decode an image file.

    Args:
        raw: The file's bytes, in one of `pnc_core.formats.FORMATS`.

    Returns:
        An image of mode L or RGB, turned as its orientation says.

    Raises:
        DataError: the bytes are no such image, or an image of more than `MAX_PIXELS` pixels.
    """
    name = refused(raw)
    if name is not None:
        raise DataError(f"{_EXPECTED}, got {name}; convert it to PNG or JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data and the like: the pixels are what counts
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                _check_size(image)
                return flattened(image)
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise DataError(f"expected at most {MAX_PIXELS} pixels, got more than twice as many; make it smaller") from None
    except Exception as error:  # decoders raise many kinds, even KeyError and AssertionError, for damaged files
        raise DataError(
            f"{_EXPECTED}, got {len(raw)} bytes that are none or are damaged ({type(error).__name__}); save it again"
        ) from None


def flattened(image: Image.Image) -> Image.Image:
    """An opened image by the rules of this module: mode L or RGB, upright.

    Args:
        image: Any mode of 8 bits a channel, or greys of 16 bits; it may be unloaded, and is not changed.

    Raises:
        DataError: the image has another mode.
        OSError: the file is damaged.
    """
    image.load()
    turned = _turned(image)
    mode = turned.mode
    if mode in _DEEP:
        return _shallow(turned)
    if mode in _TRANSPARENT or (mode in (*_GREYS, "P", "RGB") and "transparency" in turned.info):
        return _on_ground(turned)
    if mode in _GREYS:
        return turned.convert("L")
    if mode in _COLOURS:
        return turned.convert("RGB")
    raise DataError(f"expected greys or colours of 8 or 16 bits, got an image of mode {mode}; convert it to RGB")


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height}; make it smaller")


def _turned(image: Image.Image) -> Image.Image:
    """The image as its orientation says; EXIF data that cannot be read say nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # EXIF data are a small TIFF file, with the same many kinds of damage
        return image


def _shallow(image: Image.Image) -> Image.Image:
    greys = np.asarray(image)
    low, high = int(greys.min()), int(greys.max())
    if low < 0 or high > _DEEPEST:
        raise DataError(f"expected greys from 0 to {_DEEPEST}, got {low} to {high}; save them with 8 or 16 bits")
    return Image.fromarray(((greys.astype(np.uint32) * 255 + _DEEPEST // 2) // _DEEPEST).astype(np.uint8))


def _on_ground(image: Image.Image) -> Image.Image:
    seen = image.convert("RGBA")
    mixed = Image.alpha_composite(Image.new("RGBA", seen.size, (*GROUND, 255)), seen)
    return mixed.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
