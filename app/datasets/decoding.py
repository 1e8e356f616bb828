"""Decode strangers' images in processes that are worth nothing, and that are kept for the next image.

What a crafted file does to the libraries that read it, a crash or a gigabyte of pixels, happens to one of a few
children. `python -m app.datasets.decoding` is one: its standard input is a socket, on which images come and pixels go,
and it ends with whoever holds the other end. Nothing that it imports takes long or knows the service's settings.
"""

import json
import math
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.datasets.images import decode_image
from app.process import processors
from app.process.children import python
from app.process.signals import leave_to_parent
from pnc_core.errors import DataError
from pnc_core.preprocessing import Geometry

CHILDREN = max(2, min(processors.share_of(1), 8))
"""Images that are decoded at once."""
SECONDS = 20.0
"""How long one image may take; the largest that are allowed take five where processors are fought for."""
MEMORY = 2 * 1024**3
"""Bytes that a child may address; 64 million pixels of 16 bits take one."""
_ASKED = struct.Struct("<2Q")
"""Bytes of the file, and of the JSON with the geometries before it."""
_ANSWERED = struct.Struct("<?Q")
"""Whether pixels follow, or why there are none; and how many bytes."""
_NEEDED = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")


class Decoders:
    """Children that decode images, started as they are needed and replaced when they fail.

    Args:
        children: How many at most; who comes while all are busy waits.
        seconds: How long one image may take.
        memory: Bytes that a child may address.
    """

    def __init__(self, children: int = CHILDREN, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._permits = threading.BoundedSemaphore(children)
        self._idle: list[_Child] = []

    def start(self) -> None:
        """Start a child before the first image comes."""
        self._idle.append(_Child(self._seconds, self._memory))

    def decode(self, raw: bytes, geometries: Sequence[Geometry], where: str) -> list[NDArray[np.uint8]]:
        """The same as `app.datasets.images.decode_image`, elsewhere.

        Args:
            raw: The file's bytes.
            geometries: How each network wants the image.
            where: Names the image in messages.

        Raises:
            DataError: the bytes are no such image, or reading them took more than it may take.
        """
        with self._permits:
            child = self._take()
            try:
                is_image, answer = child.ask(raw, geometries)
            except OSError as error:
                child.close()
                raise DataError(
                    f"{where}: expected an image that can be decoded within {self._seconds:g} s and "
                    f"{self._memory // 1024**2} MiB, got one that ended its process ({type(error).__name__}); "
                    "save it again, or smaller"
                ) from None
            self._idle.append(child)
        if not is_image:
            raise DataError(f"{where}: {answer.decode()}")
        ends = np.cumsum([math.prod(geometry.size) for geometry in geometries])[:-1]
        parts = np.split(np.frombuffer(answer, np.uint8), ends)
        return [part.reshape(geometry.size) for part, geometry in zip(parts, geometries, strict=True)]

    def _take(self) -> "_Child":
        """A child that is alive: one that died while it had nothing to do is no image's fault."""
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            child.close()
        return _Child(self._seconds, self._memory)

    def close(self) -> None:
        """End all children that are idle; one that is busy ends with this process."""
        while self._idle:
            self._idle.pop().close()


class _Child:
    """One process and the socket to it."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(seconds)
        environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                python("app.datasets.decoding", str(memory)),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**environment, "OMP_NUM_THREADS": "1"},
                process_group=0,  # a terminal's Ctrl-C is for the parent, whose end the child sees on its input
            )

    def is_alive(self) -> bool:
        """Whether it may still answer."""
        return self._process.poll() is None

    def ask(self, raw: bytes, geometries: Sequence[Geometry]) -> tuple[bool, bytearray]:
        """Whether it was an image, and its pixels, or why it was none.

        Raises:
            OSError: the child has ended, or takes too long.
        """
        wanted = json.dumps([asdict(geometry) for geometry in geometries]).encode()
        self._socket.sendall(_ASKED.pack(len(raw), len(wanted)))
        self._socket.sendall(wanted)
        self._socket.sendall(raw)
        is_image, length = _ANSWERED.unpack(_read(self._socket, _ANSWERED.size))
        return is_image, _read(self._socket, length)

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _read(connection: socket.socket, count: int) -> bytearray:
    content, have = bytearray(count), 0
    view = memoryview(content)
    while have < count:
        got = connection.recv_into(view[have:])
        if got == 0:
            raise ConnectionError("the other end is closed")
        have += got
    return content


def main() -> None:
    """Entry of a child."""
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    leave_to_parent()  # which closes the socket
    with socket.socket(fileno=os.dup(0)) as connection, suppress(ConnectionError):
        while True:
            length, described = _ASKED.unpack(_read(connection, _ASKED.size))
            geometries = [_geometry(one) for one in json.loads(_read(connection, described))]
            is_image, answer = _decoded(bytes(_read(connection, length)), geometries)
            connection.sendall(_ANSWERED.pack(is_image, len(answer)))
            connection.sendall(answer)


def _geometry(described: dict[str, Any]) -> Geometry:
    """JSON has lists only."""
    return Geometry(**{name: tuple(value) if isinstance(value, list) else value for name, value in described.items()})


def _decoded(raw: bytes, geometries: list[Geometry]) -> tuple[bool, bytes | memoryview]:
    try:
        views = decode_image(raw, geometries, "image")
        return True, np.concatenate([view.reshape(-1) for view in views]).data
    except DataError as error:
        return False, str(error).removeprefix("image: ").encode()
    except MemoryError:
        return False, b"expected an image that fits into memory, got a larger one; save it smaller"


if __name__ == "__main__":
    main()
