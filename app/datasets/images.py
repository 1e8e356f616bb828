"""Encoded images to pixels, for workers, serving and the command line alike; `pnc_core.reading` has the rules."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pnc_core.errors import DataError
from pnc_core.fitting import fit_image, mode_of
from pnc_core.preprocessing import Geometry
from pnc_core.reading import read_image


def decode_image(raw: bytes, geometries: Sequence[Geometry], where: str) -> list[NDArray[np.uint8]]:
    """An encoded image as networks see it, decoded once.

    Args:
        raw: The file's bytes, in one of `pnc_core.formats.FORMATS`.
        geometries: How each network wants the image.
        where: Names the image in messages.

    Returns:
        uint8 (C, H, W) for each geometry.

    Raises:
        DataError: the bytes are not such an image, or a far too large one.
    """
    try:
        image = read_image(raw)
        modes = {mode_of(geometry): image.convert(mode_of(geometry)) for geometry in geometries}
        return [fit_image(modes[mode_of(geometry)], geometry) for geometry in geometries]
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
