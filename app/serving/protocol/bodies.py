"""Bodies of inference requests, read where they cannot keep others waiting.

A short one is read at once. Inflating and checking numbers lets go of Python's lock and is done in a thread. Reading
long JSON holds it: 20 MB of numbers take most of a second in which nothing else is answered, in a thread as well. So it
is done by a child process, `python -m app.serving.protocol.bodies`, which receives the text and sends numbers. A child
is kept for the next text and ends with its parent.
"""

import os
import resource
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import orjson

from app.process.children import python
from app.process.signals import leave_to_parent
from app.serving.protocol.tensors import (
    DTYPES,
    INPUTS,
    Asked,
    BadRequest,
    Form,
    Inference,
    TooManyImages,
    Wanted,
    inflate,
    joined,
    parts,
    raw,
    read,
)

TEXT = 16 * 1024
"""Bytes of JSON that are read on the event loop: they take half a millisecond."""
BYTES = 256 * 1024
"""Bytes of tensors behind it that are checked there."""
CHILDREN = 2
"""Long texts that are read at once."""
SECONDS = 30.0
"""How long one text may take; the longest that is allowed takes a second."""
MEMORY = 2 * 1024**3
"""Bytes that a child may address."""
NICE = 5
"""Children give way to the threads that run networks and answer."""
_ASKED = struct.Struct("<2Q")
"""Bytes of the head and of the text."""
_NEEDED = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")


def is_short(body: bytes | bytearray, encoding: str, header_length: str | None) -> bool:
    """Whether a body may be read on the event loop.

    Raises:
        BadRequest: the header's length leads nowhere.
    """
    if encoding not in ("", "identity") or len(body) > TEXT + BYTES:
        return False
    return len(parts(body, header_length)[0]) <= TEXT


class Readers:
    """Reads bodies, the long JSON among them in children that are started as they are needed."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []

    def read(
        self, body: bytes | bytearray, encoding: str, header_length: str | None, form: Form, most: int
    ) -> Inference:
        """Read a body, in a thread of its own.

        Args:
            body: As it came.
            encoding: `Content-Encoding`.
            header_length: `Inference-Header-Content-Length`, if it came.
            form: What the model takes.
            most: Bytes that it may have once inflated.

        Raises:
            BadRequest: it breaks the protocol, or does not fit the model.
            TooManyImages: it asks for too many.
        """
        plain = inflate(body, encoding, most)
        text, rest = parts(plain, header_length)
        if not len(text):
            return raw(rest, form)
        asked = read(text, len(rest), form) if len(text) <= TEXT else self._elsewhere(text, len(rest), form)
        return joined(asked, rest)

    def _elsewhere(self, text: memoryview, behind: int, form: Form) -> Asked:
        child = self._take()
        try:
            head, numbers = child.ask(orjson.dumps({"behind": behind, "form": asdict(form)}), text)
        except OSError as error:
            child.close()
            raise BadRequest(
                f"body: expected JSON that can be read within {SECONDS:g} s and {MEMORY // 1024**2} MiB, got one that "
                f"ended its process ({type(error).__name__}); send tensors as bytes, or less"
            ) from None
        self._idle.append(child)
        if "too_many" in head:
            raise TooManyImages(head["too_many"])
        if "bad" in head:
            raise BadRequest(head["bad"])
        return _asked(head, numbers)

    def _take(self) -> "_Child":
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            child.close()
        return _Child()

    def close(self) -> None:
        """End all children that are idle; one that is busy ends with this process."""
        while self._idle:
            self._idle.pop().close()


def _asked(head: dict[str, Any], numbers: bytearray) -> Asked:
    outputs = tuple(Wanted(**one) for one in head["outputs"])
    channels, height, width = head["shape"][1:]
    flat = np.frombuffer(numbers, DTYPES[INPUTS[head["input"]]]) if head["has_numbers"] else None
    shape = head["shape"][0], channels, height, width
    return Asked(head["id"], head["input"], shape, outputs, head["parameters"], flat)


class _Child:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(SECONDS)
        environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                python("app.serving.protocol.bodies", str(MEMORY)),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**environment, "OMP_NUM_THREADS": "1"},
                process_group=0,  # a terminal's Ctrl-C is for the parent, whose end the child sees on its input
            )

    def is_alive(self) -> bool:
        """Whether it may still answer."""
        return self._process.poll() is None

    def ask(self, head: bytes, text: memoryview) -> tuple[dict[str, Any], bytearray]:
        """What the text says, and its numbers.

        Raises:
            OSError: the child has ended, or takes too long.
        """
        self._socket.sendall(_ASKED.pack(len(head), len(text)))
        self._socket.sendall(head)
        self._socket.sendall(text)
        lengths = _ASKED.unpack(_received(self._socket, _ASKED.size))
        answer, numbers = (_received(self._socket, length) for length in lengths)
        return orjson.loads(answer), numbers

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _received(connection: socket.socket, count: int) -> bytearray:
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
    os.nice(NICE)
    leave_to_parent()  # which closes the socket
    with socket.socket(fileno=os.dup(0)) as connection, suppress(ConnectionError):
        while True:
            receive = partial(_received, connection)
            head, text = (receive(length) for length in _ASKED.unpack(receive(_ASKED.size)))
            answer, numbers = _answer(orjson.loads(head), text)
            connection.sendall(_ASKED.pack(len(answer), len(numbers)))
            connection.sendall(answer)
            connection.sendall(numbers)


def _answer(asked: dict[str, Any], text: bytearray) -> tuple[bytes, bytes]:
    wanted = asked["form"]
    channels, height, width = wanted["size"]
    form = Form((channels, height, width), tuple(wanted["outputs"]), wanted["images"])
    try:
        found = read(memoryview(text), asked["behind"], form)
    except TooManyImages as error:
        return orjson.dumps({"too_many": str(error)}), b""
    except BadRequest as error:
        return orjson.dumps({"bad": str(error)}), b""
    except MemoryError:
        return orjson.dumps({"bad": "body: expected JSON that fits into memory, got more; send tensors as bytes"}), b""
    document = {
        "id": found.id,
        "input": found.input,
        "shape": found.shape,
        "outputs": [asdict(one) for one in found.outputs],
        "parameters": found.parameters,
        "has_numbers": found.flat is not None,
    }
    return orjson.dumps(document), b"" if found.flat is None else found.flat.tobytes()


if __name__ == "__main__":
    main()
