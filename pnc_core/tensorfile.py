"""Check a safetensors file before any library parses it.

The safetensors library accepts headers of 100 MB, repeated keys and any name; a service for untrusted files must not.
Torch-free, so the HTTP front end can call it. Source: the safetensors format description. The limits are our own choice
(the largest torchvision network has fewer than 3,000 tensors).
"""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pnc_core.errors import PncError, TensorFileError

MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_TENSORS = 20_000
MAX_RANK = 8
MAX_MARKS = {b"{": 60_000, b"[": 60_000, b",": 400_000, b'"': 600_000}
"""Largest number of each JSON character in a header, including strings. A short JSON text can need much memory."""
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_.\-/]{1,256}\Z")
MAX_NAME = 200
"""Largest number of characters of a module's name; a tensor's name adds a prefix and a suffix to it."""


@dataclass(frozen=True)
class TensorInfo:
    """Dtype and shape of one tensor, from the header."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """A checked header: tensors by name, and the metadata."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    @property
    def parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(math.prod(t.shape) for t in self.tensors.values())


def is_plain(name: str) -> bool:
    """Can `read_header` read a file with tensors of a module of this name?"""
    return len(name) <= MAX_NAME and _NAME.match(name) is not None


def read_header(source: Path | BinaryIO) -> Header:
    """Read and check the header of a safetensors file, without reading the tensors.

    Args:
        source: A path, or a stream that can seek.

    Raises:
        TensorFileError: the file is truncated, malformed or over a limit.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_header(file)
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return _parse(_header_bytes(source, size), size)


def read_manifest(path: Path, key: str, what: str, error: type[PncError]) -> str:
    """Read the only entry of a file's metadata, after `read_header` has checked the header.

    Args:
        path: A safetensors file.
        key: The entry's key.
        what: Kind of file, for messages.
        error: Kind of error to raise.

    Raises:
        PncError: `error`: the header is bad, or the metadata has other keys.
    """
    try:
        header = read_header(path)
    except TensorFileError as reason:
        raise error(f"{what}: {reason}") from reason
    if set(header.metadata) != {key}:
        got = sorted(header.metadata)[:4]
        raise error(f"{what}: expected the metadata key {key!r} and no other, got {got}")
    return header.metadata[key]


def _header_bytes(file: BinaryIO, size: int) -> bytes:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise TensorFileError(f"expected a safetensors file of at least 8 bytes, got {size} bytes")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise TensorFileError(
            f"expected a header of at most {MAX_HEADER_BYTES} bytes, got {length}; "
            "is this a safetensors file? `pnc models push` converts a checkpoint of torch"
        )
    if length < 2 or 8 + length > size:
        raise TensorFileError(
            f"expected {8 + length} bytes or more, got {size}: the file is truncated, upload it again"
        )
    return file.read(length)


def _parse(raw: bytes, size: int) -> Header:
    for mark, most in MAX_MARKS.items():
        if (count := raw.count(mark)) > most:
            raise TensorFileError(f"expected at most {most} characters {mark.decode()} in a header, got {count}")
    try:
        text = raw.decode("utf-8")  # json.loads would accept other encodings, which safetensors refuses
        value = json.loads(text, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on an unpaired surrogate
    except (ValueError, RecursionError) as error:
        raise TensorFileError(f"expected a JSON header, got bytes that do not parse ({error})") from None
    if not isinstance(value, dict):
        raise TensorFileError(f"expected a JSON object as header, got {type(value).__name__}")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TensorFileError("expected __metadata__ to map strings to strings")
    if len(value) > MAX_TENSORS:
        raise TensorFileError(f"expected at most {MAX_TENSORS} tensors, got {len(value)}")
    _check_layout(value, size - 8 - len(raw))
    return Header({n: TensorInfo(t["dtype"], tuple(t["shape"])) for n, t in value.items()}, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise TensorFileError("expected every key of the header once, got a repeated key")
    return keys


def _check_layout(tensors: dict[str, Any], data_bytes: int) -> None:
    """Check every tensor, and that the tensors cover the data exactly, without overlap or gap."""
    spans = sorted(_span(name, tensor) for name, tensor in tensors.items())
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            raise TensorFileError(f"tensor {name!r}: expected its data to begin at byte {end}, got {begin}")
        end = stop
    if end != data_bytes:
        raise TensorFileError(
            f"expected {end} bytes of tensor data, got {data_bytes}: the file is damaged, upload it again"
        )


def _span(name: str, tensor: Any) -> tuple[int, int, str]:
    if not _NAME.match(name):
        raise TensorFileError(f"tensor name {name[:80]!r}: expected 1 to 256 of letters, digits and _ . - /")
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise TensorFileError(f"tensor {name!r}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise TensorFileError(f"tensor {name!r}: expected a dtype of {sorted(DTYPE_BYTES)}, got {dtype!r:.40}")
    if not _whole_numbers(shape) or len(shape) > MAX_RANK:
        raise TensorFileError(
            f"tensor {name!r}: expected a shape of at most {MAX_RANK} whole numbers, got {shape!r:.80}"
        )
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise TensorFileError(f"tensor {name!r}: expected two offsets, got {offsets!r:.80}")
    expected = math.prod(shape) * DTYPE_BYTES[dtype]
    if offsets[1] - offsets[0] != expected:
        raise TensorFileError(
            f"tensor {name!r}: expected {expected} bytes for {dtype} {shape}, got {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1], name


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value)
