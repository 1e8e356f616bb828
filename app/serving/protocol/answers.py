"""Answers of the Open Inference Protocol, serialized in pieces.

Serializing numbers as text holds Python's global lock and thereby blocks all other threads, also the event loop.
A large answer is serialized on a thread in pieces, so that other threads get the lock between two pieces.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.serving.protocol.tensors import Wanted

PIECE = 4096
"""Numbers of a piece, which takes a third of a millisecond."""
COMPRESSED = 1024
"""Shorter answers are never compressed."""
SENT = 256 * 1024
"""Bytes that are passed to the connection at a time."""
Body = list[bytes | memoryview]


class Pieces(Response):
    """An answer that is sent in pieces, as fast as the client reads.

    Args:
        content: The body.
        headers: Headers of the answer.
        until_sent: Context that is closed when the answer has been sent.
    """

    def __init__(self, content: Body, headers: dict[str, str], until_sent: ExitStack) -> None:
        length = sum(map(len, content))
        super().__init__(b"".join(content) if length <= SENT else b"", 200, headers)
        self.headers["content-length"] = str(length)
        self._content = [] if length <= SENT else content
        self._until_sent = until_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        with self._until_sent:
            if not self._content:
                await super().__call__(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for piece in self._content:
                for start in range(0, len(piece), SENT):
                    part = bytes(piece[start : start + SENT])
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def written(
    head: dict[str, Any], outputs: Sequence[Wanted], logits: torch.Tensor, classes: tuple[str, ...], accepted: str
) -> tuple[Body, dict[str, str]]:
    """An answer's body and headers.

    Args:
        head: The answer without its outputs.
        outputs: Requested outputs.
        logits: float32 (N, classes).
        classes: Names of the columns.
        accepted: Header `Accept-Encoding` of the request.
    """
    content, kind = render(head, [(wanted, output(wanted, logits, classes)) for wanted in outputs])
    content, packed = compressed(content, accepted)
    return content, {**kind, **packed}


def output(wanted: Wanted, logits: torch.Tensor, classes: tuple[str, ...]) -> NDArray[Any]:
    """Values of an output: float32 (N, classes), or bytes objects (N, best) with scores and names of the best classes.

    Args:
        wanted: The requested output.
        logits: float32 (N, classes).
        classes: Names of the columns.
    """
    numbers = (logits if wanted.name == "logits" else logits.softmax(1)).numpy()
    if not wanted.classification:
        return numbers
    best = np.argsort(-numbers, axis=1, kind="stable")[:, : wanted.classification]
    texts = [
        [f"{row[i]:f}:{i}:{classes[i]}".encode() for i in places] for row, places in zip(numbers, best, strict=True)
    ]
    return np.array(texts, dtype=object)


def render(head: dict[str, Any], arrays: Sequence[tuple[Wanted, NDArray[Any]]]) -> tuple[Body, dict[str, str]]:
    """An answer's body in pieces, and its headers.

    Args:
        head: The answer without its outputs.
        arrays: Values of each output, float32 or bytes objects.
    """
    document: Body = [orjson.dumps(head)[:-1], b',"outputs":[']
    behind: Body = []
    for number, (wanted, array) in enumerate(arrays):
        text = array.dtype == object
        about: dict[str, Any] = {
            "name": wanted.name,
            "datatype": "BYTES" if text else "FP32",
            "shape": list(array.shape),
        }
        document.append(b"," if number else b"")
        if wanted.binary:
            data = _texts(array) if text else np.ascontiguousarray(array, "<f4").data.cast("B")
            behind.append(data)
            document.append(orjson.dumps({**about, "parameters": {"binary_data_size": len(data)}}))
        else:
            document += [orjson.dumps(about)[:-1], b',"data":[', *_written(array.reshape(-1), text=text), b"]}"]
    document.append(b"]}")
    if not behind:
        return document, {"Content-Type": "application/json"}
    length = str(sum(map(len, document)))
    return document + behind, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": length,
    }


def _written(flat: NDArray[Any], *, text: bool) -> Iterator[bytes]:
    """Items of a JSON list of numbers or strings, in pieces."""
    for start in range(0, len(flat), PIECE):
        piece = flat[start : start + PIECE]
        shown = [item.decode() for item in piece] if text else piece
        yield b"," if start else b""
        yield orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _texts(array: NDArray[Any]) -> bytes:
    """Each string after its length, four bytes, little-endian."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in array.reshape(-1))


def compressed(content: Body, accepted: str) -> tuple[Body, dict[str, str]]:
    """Compress a body if the client accepts that; returns the body and its headers.

    Args:
        content: A body in pieces.
        accepted: Header `Accept-Encoding` of the request.
    """
    kinds = {part.split(";")[0].strip() for part in accepted.lower().split(",")}
    if sum(map(len, content)) < COMPRESSED or not kinds & {"gzip", "deflate"}:
        return content, {}
    kind = "gzip" if "gzip" in kinds else "deflate"
    stream = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS if kind == "gzip" else zlib.MAX_WBITS)
    packed: Iterable[bytes] = [stream.compress(piece) for piece in content]
    return [piece for piece in [*packed, stream.flush()] if piece], {"Content-Encoding": kind}
