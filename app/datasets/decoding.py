"""Decode images of untrusted origin in child processes.

A crafted file can crash the decoder or expand to a gigabyte of pixels. That happens in a child
(`app.process.child_pool`), never in the service. A child runs `python -m app.datasets.decoding`; this module therefore
imports nothing slow and no settings.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.datasets.images import decode_image
from app.process.child_pool import ChildPool, serve
from app.process.resources import processors
from pnc_core.errors import DataError
from pnc_core.preprocessing import Geometry

CHILDREN = max(2, min(processors.share_of(1), 8))
"""Images that are decoded at once."""
SECONDS = 20.0
"""Time limit of one image. The largest allowed image takes five seconds on a busy machine."""
MEMORY = 2 * 1024**3
"""Bytes of address space of a child. 64 million pixels of 16 bits take one GiB."""
_IS_IMAGE, _IS_PROBLEM = b"image", b"problem"
"""Heads of answers: pixels follow, or an error message."""


class Decoders:
    """Decode images in children.

    Args:
        children: Largest number of images that are decoded at once.
        seconds: Time limit of one image.
        memory: Bytes of address space of a child.
    """

    def __init__(self, children: int = CHILDREN, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._children = ChildPool("app.datasets.decoding", children, seconds, memory)

    def start(self) -> None:
        """Start a child before the first image arrives."""
        self._children.start()

    def decode(self, raw: bytes, geometries: Sequence[Geometry], where: str) -> list[NDArray[np.uint8]]:
        """Decode an image as `app.datasets.images.decode_image` does, in a child.

        Args:
            raw: The file's bytes.
            geometries: Geometries of the networks that see the image, at least one.
            where: Names the image in messages.

        Returns:
            Pixels for each geometry, uint8 (C, H, W).

        Raises:
            DataError: the bytes are no image of an allowed format, or decoding exceeded the time or memory limit.
        """
        try:
            kind, answer = self._children.ask(json.dumps([asdict(geometry) for geometry in geometries]).encode(), raw)
        except OSError as error:
            raise DataError(
                f"{where}: expected an image that can be decoded within {self._seconds:g} s and "
                f"{self._memory // 1024**2} MiB, got one that ended its process ({type(error).__name__}); "
                "save it again, or smaller"
            ) from None
        if kind == _IS_PROBLEM:
            raise DataError(f"{where}: {answer.decode()}")
        ends = np.cumsum([math.prod(geometry.size) for geometry in geometries])[:-1]
        parts = np.split(np.frombuffer(answer, np.uint8), ends)
        return [part.reshape(geometry.size) for part, geometry in zip(parts, geometries, strict=True)]

    def close(self) -> None:
        """End all idle children. A busy child ends with this process."""
        self._children.close()


def _decoded(head: bytearray, raw: bytearray) -> tuple[bytes, bytes | memoryview]:
    try:
        pixels = decode_image(bytes(raw), [_geometry(fields) for fields in json.loads(head)], "image")
        return _IS_IMAGE, np.concatenate([one.reshape(-1) for one in pixels]).data
    except DataError as error:
        return _IS_PROBLEM, str(error).removeprefix("image: ").encode()
    except MemoryError:
        return _IS_PROBLEM, b"expected an image that fits into memory, got a larger one; save it smaller"


def _geometry(fields: dict[str, Any]) -> Geometry:
    """A geometry from JSON, which has lists in place of tuples."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return Geometry(**values)


if __name__ == "__main__":
    serve(_decoded)
