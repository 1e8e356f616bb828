"""What networks and bundles are made of, read from their files' headers: no network is built."""

import json
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np

from pnc_core.errors import TensorFileError
from pnc_core.tensorfile import MAX_HEADER_BYTES

WEIGHT = ".weight"
KEPT = "kept."
"""How a bundle names the tensor of a group's kept channels."""


@dataclass(frozen=True)
class Layer:
    """The weights of one layer."""

    name: str
    shape: tuple[int, ...]
    numbers: int
    """All of the layer's numbers, biases and statistics included."""

    @property
    def channels(self) -> int:
        """How many it makes."""
        return self.shape[0]


@dataclass(frozen=True)
class Mask:
    """The channels of a group that a module kept."""

    group: str
    """Layer of the source that makes them."""
    width: int
    """How many the source has."""
    kept: tuple[int, ...]
    """Their places, ascending."""


def layers(weights: BinaryIO) -> list[Layer]:
    """Layers with a matrix of weights, in the order of the file's names.

    Args:
        weights: A safetensors file; only its header is read.

    Raises:
        TensorFileError: it is not one.
    """
    shapes = {name: tuple(entry["shape"]) for name, entry in _header(weights)[0].items()}
    numbers: dict[str, int] = {}
    for name, shape in shapes.items():
        owner = name.rpartition(".")[0]
        numbers[owner] = numbers.get(owner, 0) + prod(shape)
    names = [name.removesuffix(WEIGHT) for name, shape in shapes.items() if name.endswith(WEIGHT) and len(shape) >= 2]
    return [Layer(name, shapes[name + WEIGHT], numbers[name]) for name in names]


def masks(bundle: BinaryIO, source: BinaryIO) -> list[Mask]:
    """What a bundle kept of every group of the source, in the order of the source's layers.

    Args:
        bundle: Thin or full; its header and the indices of kept channels are read.
        source: Weights of the source; only the header is read.

    Raises:
        TensorFileError: a file is not safetensors.
    """
    widths = {layer.name: layer.channels for layer in layers(source)}
    order = {name: place for place, name in enumerate(widths)}
    kept = _kept(bundle)
    found = [Mask(group, max(widths.get(group, 0), *(k + 1 for k in ks), 0), ks) for group, ks in kept.items()]
    return sorted(found, key=lambda mask: (order.get(mask.group, len(order)), mask.group))


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Entries of the tensors, and where their bytes begin; whole files were checked when they came in."""
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise TensorFileError(f"expected a header of at most {MAX_HEADER_BYTES} bytes, got {length}")
    try:
        entries = json.loads(file.read(length))
        return {name: entry for name, entry in entries.items() if name != "__metadata__"}, 8 + length
    except (ValueError, AttributeError, RecursionError):
        raise TensorFileError("expected a safetensors file, got one whose header does not parse") from None


def _kept(bundle: BinaryIO) -> dict[str, tuple[int, ...]]:
    """Indices of kept channels by group."""
    header, begin = _header(bundle)
    found = {}
    for name, entry in header.items():
        if name.startswith(KEPT) and entry["dtype"] == "I32":
            first, last = entry["data_offsets"]
            bundle.seek(begin + first)
            indices = np.frombuffer(bundle.read(last - first), dtype="<i4")
            found[name.removeprefix(KEPT)] = tuple(int(i) for i in indices)
    return found
