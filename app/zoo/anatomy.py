"""What networks and bundles are made of, read from their files' headers: no network is built."""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from pnc_core.tensorfile import Header, read_header

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


def layers(path: Path) -> list[Layer]:
    """Layers with a matrix of weights, in the order of the file's names.

    Raises:
        TensorFileError: the file is not whole, harmless safetensors.
    """
    return _layers(read_header(path))


def masks(bundle: Path, source: Path) -> list[Mask]:
    """What a bundle kept of every group of the source, in the order of the source's layers.

    Args:
        bundle: Thin or full.
        source: Weights of the source.

    Raises:
        TensorFileError: a file is not whole, harmless safetensors.
    """
    widths = {layer.name: layer.channels for layer in layers(source)}
    order = {name: place for place, name in enumerate(widths)}
    kept = _kept(bundle)
    found = [Mask(group, max(widths.get(group, 0), *(k + 1 for k in ks), 0), ks) for group, ks in kept.items()]
    return sorted(found, key=lambda mask: (order.get(mask.group, len(order)), mask.group))


def _layers(header: Header) -> list[Layer]:
    owners: dict[str, int] = {}
    for name, info in header.tensors.items():
        owner = name.rpartition(".")[0]
        owners[owner] = owners.get(owner, 0) + prod(info.shape)
    return [
        Layer(name.removesuffix(".weight"), info.shape, owners[name.removesuffix(".weight")])
        for name, info in header.tensors.items()
        if name.endswith(".weight") and len(info.shape) >= 2
    ]


def _kept(path: Path) -> dict[str, tuple[int, ...]]:
    """Indices of kept channels by group; the header was checked, so that offsets lie inside the file."""
    wanted = [name for name, info in read_header(path).tensors.items() if name.startswith(KEPT) and info.dtype == "I32"]
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    found = {}
    for name in wanted:
        first, last = header[name]["data_offsets"]
        indices = np.frombuffer(raw[begin + first : begin + last], dtype="<i4")
        found[name.removeprefix(KEPT)] = tuple(int(i) for i in indices)
    return found
