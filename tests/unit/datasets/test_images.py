import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.datasets.images import decode_image
from pnc_core.errors import DataError
from pnc_core.preprocessing import Geometry


def _file(pixels: NDArray[np.generic], format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def squash(*size: int) -> Geometry:
    channels, height, width = size
    return Geometry((channels, height, width))


@pytest.mark.parametrize("channels", [1, 3])
def test_greys_of_16_bits_are_scaled_to_8(channels: int) -> None:
    raw = _file(np.array([[0, 128, 257, 32768, 65535]], np.uint16))
    (pixels,) = decode_image(raw, [squash(channels, 1, 5)], "it")
    assert pixels.tolist() == [[[0, 0, 1, 128, 255]]] * channels


def test_greys_of_8_bits_stay_as_they_are() -> None:
    pixels = np.array([[0, 1, 128, 255]], np.uint8)
    (found,) = decode_image(_file(pixels), [squash(1, 1, 4)], "it")
    assert found.tolist() == [pixels.tolist()]


def test_the_message_names_the_image() -> None:
    with pytest.raises(DataError, match="it: expected greys or colours of 8 or 16 bits, got an image of mode F"):
        decode_image(_file(np.zeros((2, 2), np.float32), "TIFF"), [squash(1, 2, 2)], "it")
