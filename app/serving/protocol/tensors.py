"""Tensors in requests of the Open Inference Protocol: JSON numbers, or raw bytes after the JSON.

An inference request is JSON, or JSON followed by the bytes of its tensors. In the second form the
header `Inference-Header-Content-Length` holds the length of the JSON. With length 0 the whole body is
the only input. All values are checked before an array is reshaped.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
"""Datatypes of inputs."""
PIXELS, PREPROCESSED = "images", "preprocessed"
INPUTS = {PIXELS: "UINT8", PREPROCESSED: "FP32"}
MOST_PARAMETERS = 64
MOST_CHARACTERS = 16_384
"""Most characters of a parameter or an id; enough for the ids of a few hundred modules."""


class BadRequest(Exception):
    """The request violates the protocol. The message names the expected value."""


class TooManyImages(Exception):
    """The request exceeds a limit on one request. The message names the limit."""


@dataclass(frozen=True)
class Wanted:
    """A requested output."""

    name: str
    binary: bool
    classification: int
    """Number of best classes that are answered as text; 0: numbers of all classes."""


@dataclass(frozen=True)
class Form:
    """Form of the requests for a model."""

    size: tuple[int, int, int]
    """Channels, height and width of one image."""
    outputs: tuple[str, ...]
    """Names of outputs."""
    images: int
    """Most images of a request."""

    @property
    def numbers(self) -> int:
        """Numbers of one image."""
        return self.size[0] * self.size[1] * self.size[2]

    def check_count(self, count: int) -> None:
        """Check the number of images before they are read.

        Raises:
            TooManyImages: the number exceeds `images`.
        """
        if count > self.images:
            raise TooManyImages(
                f"expected at most {self.images} images in a request, got {count}; send fewer at a time"
            )


@dataclass(frozen=True)
class Inference:
    """A checked request."""

    id: str | None
    input: str
    array: NDArray[Any]
    outputs: tuple[Wanted, ...]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """Content of the JSON of a request."""

    id: str | None
    input: str
    shape: tuple[int, int, int, int]
    outputs: tuple[Wanted, ...]
    parameters: dict[str, Any]
    flat: NDArray[Any] | None
    """The numbers; None: they follow the JSON as bytes."""


def inflate(body: bytes | bytearray, encoding: str, most: int) -> bytes | bytearray:
    """Decompress a body.

    Args:
        body: The body of the request.
        encoding: Header `Content-Encoding`: empty, `identity`, `gzip` or `deflate`.
        most: Most bytes of the decompressed body. Decompression stops at this length.

    Raises:
        BadRequest: the encoding is unknown, or the body is damaged or too long.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise BadRequest(f"Content-Encoding: expected gzip, deflate or none, got {encoding!r:.40}")
    # Adding 16 selects gzip. zlib's own format is called deflate in HTTP.
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


def parts(body: bytes | bytearray, header_length: str | None) -> tuple[memoryview, memoryview]:
    """Split a body into JSON and the bytes after it, without copying.

    Args:
        body: The decompressed body.
        header_length: Header `Inference-Header-Content-Length`; None: absent.

    Raises:
        BadRequest: the header is no length within the body.
    """
    view = memoryview(body)
    if header_length is None:
        return view, view[:0]
    few = header_length.isascii() and header_length.isdigit() and len(header_length) <= 12
    end = int(header_length) if few else -1
    if not 0 <= end <= len(view):
        raise BadRequest(f"Inference-Header-Content-Length: expected 0 to {len(view)}, got {header_length!r:.40}")
    return view[:end], view[end:]


def raw(rest: memoryview, form: Form) -> Inference:
    """A request without JSON, whose bytes are all pixels.

    Raises:
        BadRequest: the bytes are no whole number of images.
        TooManyImages: the request has too many images.
    """
    if not len(rest) or len(rest) % form.numbers:
        raise BadRequest(
            f"body: expected a multiple of {form.numbers} bytes (UINT8 {list(form.size)} an image), got {len(rest)}"
        )
    form.check_count(len(rest) // form.numbers)
    array = _array(rest, np.dtype("u1")).reshape(-1, *form.size)
    return Inference(None, PIXELS, array, tuple(Wanted(name, True, 0) for name in form.outputs), {})


def read(text: memoryview | bytes, behind: int, form: Form) -> Asked:
    """Read the JSON of a request.

    Args:
        text: The JSON.
        behind: Number of bytes after the JSON.
        form: Form of the requests for the model.

    Raises:
        BadRequest: the request breaks the protocol, or does not fit the model.
        TooManyImages: the request has too many images.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: expected JSON, got text that fails: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest(f"body: expected an object, got {type(document).__name__}")
    parameters = _parameters(document, "parameters")
    name, shape, flat = _input(document.get("inputs"), behind, form)
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequest(f"id: expected a string, got {type(request_id).__name__}")
    if request_id is not None and len(request_id) > MOST_CHARACTERS:
        raise BadRequest(f"id: expected at most {MOST_CHARACTERS} characters, got {len(request_id)}")
    wanted = _outputs(document.get("outputs"), bool(parameters.get("binary_data_output", False)), form.outputs)
    return Asked(request_id, name, shape, wanted, parameters, flat)


def joined(asked: Asked, rest: memoryview) -> Inference:
    """Combine the content of the JSON with the bytes after it.

    Raises:
        BadRequest: a number is not finite.
    """
    dtype = DTYPES[INPUTS[asked.input]]
    flat = _array(rest, dtype) if asked.flat is None else asked.flat
    if dtype.kind == "f" and not np.isfinite(flat).all():
        raise BadRequest(f"{asked.input}: expected finite numbers, got inf or nan")
    return Inference(asked.id, asked.input, flat.reshape(asked.shape), asked.outputs, asked.parameters)


def parse(body: bytes | bytearray, header_length: str | None, form: Form) -> Inference:
    """Read a whole inference request.

    Args:
        body: The decompressed body.
        header_length: Header `Inference-Header-Content-Length`; None: absent.
        form: Form of the requests for the model.

    Raises:
        BadRequest: the request breaks the protocol, or does not fit the model.
        TooManyImages: the request has too many images.
    """
    text, rest = parts(body, header_length)
    return raw(rest, form) if not len(text) else joined(read(text, len(rest), form), rest)


def _array(rest: memoryview, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array on the bytes. They are copied if torch could not use them: read-only or misaligned memory."""
    array = np.frombuffer(rest, np.uint8)
    if not array.flags.writeable or array.ctypes.data % dtype.itemsize:
        array = array.copy()
    return array.view(dtype)


def _parameters(document: dict[str, Any], where: str) -> dict[str, Any]:
    found = document.get("parameters") or {}
    scalar = isinstance(found, dict) and len(found) <= MOST_PARAMETERS
    if not scalar or not all(isinstance(v, str | int | float | bool) for v in found.values()):
        raise BadRequest(f"{where}: expected an object of at most {MOST_PARAMETERS} strings, numbers or booleans")
    if any(isinstance(v, str) and len(v) > MOST_CHARACTERS for v in found.values()):
        raise BadRequest(f"{where}: expected strings of at most {MOST_CHARACTERS} characters, got a longer one")
    return found


def _input(inputs: Any, behind: int, form: Form) -> tuple[str, tuple[int, int, int, int], NDArray[Any] | None]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        got = f"{len(inputs)}" if isinstance(inputs, list) else type(inputs).__name__
        raise BadRequest(f"inputs: expected a list of one input, {PIXELS} or {PREPROCESSED}, got {got}")
    tensor = inputs[0]
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str) or name not in INPUTS:
        raise BadRequest(f"inputs: expected {PIXELS} or {PREPROCESSED}, got {name!r:.80}")
    if datatype != INPUTS[name]:
        raise BadRequest(f"{name}: expected datatype {INPUTS[name]}, got {datatype!r:.40}")
    if not (
        isinstance(shape, list)
        and len(shape) == 4
        and all(type(n) is int for n in shape)
        and tuple(shape[1:]) == form.size
        and shape[0] >= 1
    ):
        raise BadRequest(
            f"{name}: expected shape [N, {', '.join(map(str, form.size))}] with N at least 1, got {shape!r:.80}"
        )
    count, dtype = shape[0] * form.numbers, DTYPES[datatype]
    form.check_count(shape[0])
    binary = _parameters(tensor, f"{name}.parameters").get("binary_data_size")
    flat = _numbers(tensor.get("data"), count, dtype, name) if binary is None else None
    if binary is not None:
        _check_bytes(behind, binary, count * dtype.itemsize, name)
    return name, (shape[0], *form.size), flat


def _check_bytes(behind: int, binary: Any, expected: int, name: str) -> None:
    if type(binary) is not int or binary != expected or behind != expected:
        raise BadRequest(
            f"{name}: expected {expected} bytes after the JSON, got {behind} and binary_data_size {binary!r:.40}"
        )


def _numbers(data: Any, count: int, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    if not isinstance(data, list):
        raise BadRequest(f"{name}.data: expected a list of {count} numbers, got {type(data).__name__}")
    numbers = _flattened(data, count, name)
    flat = np.asarray(numbers)
    if flat.dtype.kind not in "uif" or len(flat) != count:
        raise BadRequest(f"{name}.data: expected {count} numbers, got {len(flat)} of kind {flat.dtype}")
    if dtype.kind == "u":
        if flat.dtype.kind == "f" or flat.min() < 0 or flat.max() > 255:
            raise BadRequest(f"{name}.data: expected integers from 0 to 255, got others")
    elif np.abs(flat).max() > np.finfo(dtype).max:
        raise BadRequest(f"{name}.data: expected numbers that fit into {dtype}, got larger ones")
    return flat.astype(dtype)


def _flattened(data: list[Any], count: int, name: str) -> list[Any]:
    """Flatten nested lists of numbers. Refuse strings: numpy would allocate the longest string for each element."""
    while (kinds := set(map(type, data))) == {list}:
        if len(set(map(len, data))) > 1:
            raise BadRequest(f"{name}.data: expected {count} numbers, got lists of different lengths")
        data = list(chain.from_iterable(data))
    if list in kinds:
        raise BadRequest(f"{name}.data: expected {count} numbers, got lists of different lengths")
    if not kinds <= {int, float}:
        found = sorted(kind.__name__ for kind in kinds - {int, float})
        raise BadRequest(f"{name}.data: expected {count} numbers, got {len(data)} of kind {', '.join(found)}")
    return data


def _outputs(outputs: Any, binary: bool, names: Sequence[str]) -> tuple[Wanted, ...]:
    if not outputs:
        return tuple(Wanted(name, binary, 0) for name in names)
    if not isinstance(outputs, list) or len(outputs) > len(names) or not all(isinstance(o, dict) for o in outputs):
        raise BadRequest(f"outputs: expected a list of objects with a name among {list(names)}, each once")
    found: dict[str, Wanted] = {}
    for output in outputs:
        name = output.get("name")
        if not isinstance(name, str) or name not in names or name in found:
            raise BadRequest(f"outputs: expected names among {list(names)}, each once, got {name!r:.80}")
        parameters = _parameters(output, f"{name}.parameters")
        best = parameters.get("classification", 0)
        if type(best) is not int or best < 0:
            raise BadRequest(f"{name}.parameters.classification: expected a number of classes, got {best!r:.40}")
        found[name] = Wanted(name, bool(parameters.get("binary_data", binary)), best)
    return tuple(found.values())
