"""Tensors on the wire of the Open Inference Protocol: JSON numbers, or raw bytes behind the JSON.

An inference request is JSON, or JSON followed by the bytes of its tensors; then the header
`Inference-Header-Content-Length` says where the JSON ends (0: there is none, and all bytes are
the only input). Everything is checked before anything is reshaped.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
"""Datatypes that an input may have."""
PIXELS, PREPROCESSED = "images", "preprocessed"
INPUTS = {PIXELS: "UINT8", PREPROCESSED: "FP32"}
MOST_PARAMETERS = 64


class BadRequest(Exception):
    """The request is not one of the protocol; the message says what was expected."""


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for."""

    name: str
    binary: bool
    classification: int
    """How many of the best classes as text, in place of numbers; 0: numbers."""


@dataclass(frozen=True)
class Inference:
    """A request, checked."""

    id: str | None
    input: str
    array: NDArray[Any]
    outputs: tuple[Wanted, ...]
    parameters: dict[str, Any]


def inflate(body: bytes, encoding: str, most: int) -> bytes:
    """A body without its compression.

    Args:
        body: As it came.
        encoding: `Content-Encoding`: empty, `identity`, `gzip` or `deflate`.
        most: Bytes that it may have afterwards.

    Raises:
        BadRequest: another encoding, damaged, or too long.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise BadRequest(f"Content-Encoding: expected gzip, deflate or none, got {encoding!r:.40}")
    # zlib wants to know: 16 for gzip, 15 for zlib's own form, which HTTP calls deflate.
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        plain = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise BadRequest(f"body: expected {encoding}, got bytes that are not ({error})") from None
    if len(plain) > most:
        raise BadRequest(f"body: expected at most {most} bytes once inflated, got more; send less")
    if not stream.eof:
        raise BadRequest(f"body: expected whole {encoding}, got one that is cut off")
    return plain


def parse(body: bytes, header_length: str | None, size: tuple[int, int, int], outputs: Sequence[str]) -> Inference:
    """Read an inference request.

    Args:
        body: Without compression.
        header_length: `Inference-Header-Content-Length`, if it came.
        size: Channels, height and width of one image.
        outputs: Names that can be asked for.

    Raises:
        BadRequest: it breaks the protocol, or does not fit the model.
    """
    text, rest = _parts(body, header_length)
    if not text:
        return Inference(None, PIXELS, _raw(rest, size), tuple(Wanted(name, True, 0) for name in outputs), {})
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: expected JSON, got text that fails: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest(f"body: expected an object, got {type(document).__name__}")
    parameters = _parameters(document, "parameters")
    name, array = _input(document.get("inputs"), rest, size)
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequest(f"id: expected a string, got {type(request_id).__name__}")
    wanted = _outputs(document.get("outputs"), bool(parameters.get("binary_data_output", False)), outputs)
    return Inference(request_id, name, array, wanted, parameters)


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    few = header_length.isascii() and header_length.isdigit() and len(header_length) <= 12
    end = int(header_length) if few else -1
    if not 0 <= end <= len(body):
        raise BadRequest(f"Inference-Header-Content-Length: expected 0 to {len(body)}, got {header_length!r:.40}")
    return body[:end], body[end:]


def _raw(rest: bytes, size: tuple[int, int, int]) -> NDArray[Any]:
    one = size[0] * size[1] * size[2]
    if not rest or len(rest) % one:
        raise BadRequest(f"body: expected a multiple of {one} bytes (UINT8 {list(size)} an image), got {len(rest)}")
    return np.frombuffer(bytearray(rest), np.uint8).reshape(-1, *size)


def _parameters(document: dict[str, Any], where: str) -> dict[str, Any]:
    found = document.get("parameters") or {}
    scalar = isinstance(found, dict) and all(isinstance(v, str | int | float | bool) for v in found.values())
    if not scalar or len(found) > MOST_PARAMETERS:
        raise BadRequest(f"{where}: expected an object of at most {MOST_PARAMETERS} strings, numbers or booleans")
    return found


def _input(inputs: Any, rest: bytes, size: tuple[int, int, int]) -> tuple[str, NDArray[Any]]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        got = f"{len(inputs)}" if isinstance(inputs, list) else type(inputs).__name__
        raise BadRequest(f"inputs: expected a list of one input, {PIXELS} or {PREPROCESSED}, got {got}")
    tensor = inputs[0]
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str) or name not in INPUTS:
        raise BadRequest(f"inputs: expected {PIXELS} or {PREPROCESSED}, got {name!r:.80}")
    if datatype != INPUTS[name]:
        raise BadRequest(f"{name}: expected datatype {INPUTS[name]}, got {datatype!r:.40}")
    if (
        not isinstance(shape, list)
        or not all(type(n) is int for n in shape)
        or len(shape) != 4
        or tuple(shape[1:]) != size
        or shape[0] < 1
    ):
        raise BadRequest(
            f"{name}: expected shape [N, {size[0]}, {size[1]}, {size[2]}] with N at least 1, got {shape!r:.80}"
        )
    count, dtype = shape[0] * size[0] * size[1] * size[2], DTYPES[datatype]
    binary = _parameters(tensor, f"{name}.parameters").get("binary_data_size")
    if binary is None:
        flat = _numbers(tensor.get("data"), count, dtype, name)
    else:
        flat = _bytes(rest, binary, count, dtype, name)
    if dtype.kind == "f" and not np.isfinite(flat).all():
        raise BadRequest(f"{name}: expected finite numbers, got inf or nan")
    return name, flat.reshape(shape)


def _bytes(rest: bytes, binary: Any, count: int, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    expected = count * dtype.itemsize
    if type(binary) is not int or binary != expected or len(rest) != expected:
        raise BadRequest(
            f"{name}: expected {expected} bytes behind the JSON, got {len(rest)} and binary_data_size {binary!r:.40}"
        )
    return np.frombuffer(bytearray(rest), dtype)  # a copy: torch wants memory that could be written


def _numbers(data: Any, count: int, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    if not isinstance(data, list):
        raise BadRequest(f"{name}.data: expected a list of {count} numbers, got {type(data).__name__}")
    try:
        flat = np.asarray(data)
        flat = flat.reshape(-1)
    except ValueError:
        raise BadRequest(f"{name}.data: expected {count} numbers, got lists of different lengths") from None
    if flat.dtype.kind not in "uif" or len(flat) != count:
        raise BadRequest(f"{name}.data: expected {count} numbers, got {len(flat)} of kind {flat.dtype}")
    if dtype.kind == "u":
        if flat.dtype.kind == "f" or flat.min() < 0 or flat.max() > 255:
            raise BadRequest(f"{name}.data: expected integers from 0 to 255, got others")
    elif np.abs(flat).max() > np.finfo(dtype).max:
        raise BadRequest(f"{name}.data: expected numbers that fit into {dtype}, got larger ones")
    return flat.astype(dtype)


def _outputs(outputs: Any, binary: bool, names: Sequence[str]) -> tuple[Wanted, ...]:
    if not outputs:
        return tuple(Wanted(name, binary, 0) for name in names)
    if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
        raise BadRequest(f"outputs: expected a list of objects with a name among {list(names)}")
    found = []
    for output in outputs:
        name = output.get("name")
        if not isinstance(name, str) or name not in names:
            raise BadRequest(f"outputs: expected names among {list(names)}, got {name!r:.80}")
        parameters = _parameters(output, f"{name}.parameters")
        best = parameters.get("classification", 0)
        if type(best) is not int or best < 0:
            raise BadRequest(f"{name}.parameters.classification: expected a number of classes, got {best!r:.40}")
        found.append(Wanted(name, bool(parameters.get("binary_data", binary)), best))
    return tuple(found)


def render(head: dict[str, Any], arrays: Sequence[tuple[Wanted, NDArray[Any]]]) -> tuple[bytes, dict[str, str]]:
    """An answer's body and headers.

    Args:
        head: Everything of the answer but the outputs.
        arrays: float32, or bytes objects for text.
    """
    outputs, raw = [], []
    for wanted, array in arrays:
        text = array.dtype == object
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": "BYTES" if text else "FP32",
            "shape": list(array.shape),
        }
        if wanted.binary:
            data = _texts(array) if text else array.astype("<f4").tobytes()
            output["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            flat = array.reshape(-1)
            output["data"] = [item.decode() for item in flat] if text else flat
        outputs.append(output)
    document = orjson.dumps({**head, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not raw:
        return document, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(document))}
    return b"".join([document, *raw]), headers


def _texts(array: NDArray[Any]) -> bytes:
    """Every text behind its length, four bytes, little-endian."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in array.reshape(-1))
