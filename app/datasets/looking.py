"""Facts about one decoded image, without its pixels: what finds duplicates, constant images and small ones.

An inspection runs this in a child process. This module therefore imports nothing slow and no settings.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pnc_core.errors import DataError
from pnc_core.reading import read_image

SIDE = 16
"""Side of the small grey copy that near duplicates are found with."""
TILE = 64
"""Side of a sample on a dataset's page."""
FLAT = 2
"""Greatest difference between the pixels of a constant image, of 255: JPEG may change a constant by one."""
FACTS = np.dtype([
    ("row", "<i8"), ("width", "<u4"), ("height", "<u4"), ("state", "u1"), ("digest", "<u8", (2,)),
    ("small", "u1", (SIDE, SIDE)),
])  # fmt: skip
"""One image: number of its row, size, state, digest of its pixels, and a small grey copy."""
GOOD, CONSTANT, BAD = 0, 1, 2
"""States: `BAD` cannot be decoded, and the other fields are 0."""
Facts = NDArray[np.void]


@dataclass(frozen=True)
class Look:
    """One image."""

    facts: Facts
    """One element of type `FACTS`."""
    image: Image.Image | None
    """The decoded image; none: it cannot be decoded."""
    fault: str
    """Why it cannot be decoded; empty: it can."""


def look(row: int, raw: bytes) -> Look:
    """Decode an image once and note its facts.

    Args:
        row: Number of its row.
        raw: The file's bytes.
    """
    facts = np.zeros((), FACTS)
    facts["row"] = row
    try:
        image = read_image(raw)
    except DataError as error:
        facts["state"] = BAD
        return Look(facts, None, str(error))
    except MemoryError:
        facts["state"] = BAD
        return Look(facts, None, "expected an image that fits into memory, got a larger one; save it smaller")
    colours = image.convert("RGB")
    size = f"{colours.width}x{colours.height}".encode()
    digest = blake2b(colours.tobytes(), digest_size=16, salt=b"pixels", person=size[:16]).digest()
    facts["width"], facts["height"] = image.size
    facts["digest"] = np.frombuffer(digest, "<u8")
    facts["small"] = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
    facts["state"] = CONSTANT if _is_constant(colours) else GOOD
    return Look(facts, image, "")


def tile(image: Image.Image) -> bytes:
    """A sample for the page: RGB, (TILE, TILE, 3) bytes, with white beside the image."""
    shown = ImageOps.pad(image.convert("RGB"), (TILE, TILE), Image.Resampling.LANCZOS, color="white")
    return shown.tobytes()


def _is_constant(image: Image.Image) -> bool:
    bands = cast(tuple[tuple[int, int], ...], image.getextrema())
    return all(high - low <= FLAT for low, high in bands)
