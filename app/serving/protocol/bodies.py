"""Reading bodies of inference requests without blocking other requests.

A short body is read on the event loop. Decompressing and checking numbers release Python's global lock and run on a
thread. Reading long JSON holds the lock: 20 MB of numbers take most of a second, in which all threads wait. A child
process reads it instead (`app.process.child_pool`), which runs `python -m app.serving.protocol.bodies`.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import orjson

from app.process.child_pool import ChildPool, serve
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
"""Most bytes of JSON that are read on the event loop, in half a millisecond."""
BYTES = 256 * 1024
"""Most bytes of binary tensors that are checked on the event loop."""
CHILDREN = 2
"""Long texts that are read at the same time."""
SECONDS = 30.0
"""Time limit of one text. The longest allowed text takes a second."""
MEMORY = 2 * 1024**3
"""Bytes of address space of a child."""
NICENESS = 5
"""Niceness of a child, so that inference and answers have precedence."""


def is_short(body: bytes | bytearray, encoding: str, header_length: str | None) -> bool:
    """Whether a body may be read on the event loop.

    Raises:
        BadRequest: `header_length` is no valid length of the JSON.
    """
    if encoding not in ("", "identity") or len(body) > TEXT + BYTES:
        return False
    return len(parts(body, header_length)[0]) <= TEXT


class Readers:
    """Reads bodies, and long JSON in child processes."""

    def __init__(self) -> None:
        self._children = ChildPool("app.serving.protocol.bodies", CHILDREN, SECONDS, MEMORY)

    def read(
        self, body: bytes | bytearray, encoding: str, header_length: str | None, form: Form, most: int
    ) -> Inference:
        """Read a body. Call it in a thread, since it may wait for a child.

        Args:
            body: The body of the request.
            encoding: Header `Content-Encoding`.
            header_length: Header `Inference-Header-Content-Length`; None: absent.
            form: Form of the requests for the model.
            most: Most bytes of the decompressed body.

        Raises:
            BadRequest: the request breaks the protocol, or does not fit the model.
            TooManyImages: the request has too many images.
        """
        plain = inflate(body, encoding, most)
        text, rest = parts(plain, header_length)
        if not len(text):
            return raw(rest, form)
        asked = read(text, len(rest), form) if len(text) <= TEXT else self._read_in_child(text, len(rest), form)
        return joined(asked, rest)

    def _read_in_child(self, text: memoryview, behind: int, form: Form) -> Asked:
        try:
            head, numbers = self._children.ask(orjson.dumps({"behind": behind, "form": asdict(form)}), text)
        except OSError as error:
            raise BadRequest(
                f"body: expected JSON that can be read within {SECONDS:g} s and {MEMORY // 1024**2} MiB, got one that "
                f"ended its process ({type(error).__name__}); send tensors as bytes, or less"
            ) from None
        answer = orjson.loads(head)
        if "too_many" in answer:
            raise TooManyImages(answer["too_many"])
        if "bad" in answer:
            raise BadRequest(answer["bad"])
        return _asked(answer, numbers)

    def close(self) -> None:
        """End all idle children. A busy child ends with this process."""
        self._children.close()


def _asked(head: dict[str, Any], numbers: bytearray) -> Asked:
    outputs = tuple(Wanted(**one) for one in head["outputs"])
    channels, height, width = head["shape"][1:]
    flat = np.frombuffer(numbers, DTYPES[INPUTS[head["input"]]]) if head["has_numbers"] else None
    shape = head["shape"][0], channels, height, width
    return Asked(head["id"], head["input"], shape, outputs, head["parameters"], flat)


def _answer(head: bytearray, text: bytearray) -> tuple[bytes, bytes]:
    asked = orjson.loads(head)
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
    serve(_answer, niceness=NICENESS)
