"""The outline of a checkpoint: the names, shapes and dtypes of its tensors, as JSON and without their numbers.

The service's page reads a file of weights in the browser and sends its outline. The service finds the architecture from
the outline and answers with a plan: the place and the new name of each tensor. The browser then writes a safetensors
file from this plan, so that no pickle reaches the service.

References:
    Own choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pnc_core.errors import TensorFileError
from pnc_core.networks.checkpoint import own_state
from pnc_core.networks.names import uncounted

MOST_TENSORS, MOST_AXES, LONGEST_AXIS, DEEPEST = 50_000, 8, 2**31, 8
"""Limits of an outline."""
_DTYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    )
}


@dataclass(frozen=True)
class Outline:
    """The tensors of one network, by the network's own names in the order of the file."""

    shapes: dict[str, tuple[int, ...]]
    places: dict[str, int | None]
    """Index of each tensor in the browser's list. None: a batch norm's counter that the file lacks, which is zero."""
    ordered: bool
    """Whether the tensors come in the network's order."""
    notes: tuple[str, ...]
    """One line for each thing that was chosen, changed or left out."""
    architecture: str | None
    """The name that the training script noted."""


def read_outline(document: Mapping[str, Any]) -> Outline:
    """Find the tensors of one network in an outline.

    Args:
        document: `name` of the file, its `kind` ("zip", "legacy" or "safetensors") and `saved`. That is a value:
            `{"map": [[key, value], ...]}`, `{"tensor": [index, dtype, shape]}`, `{"text": string}` or
            `{"other": name of a class}`.

    Raises:
        TensorFileError: the outline is malformed, or holds no network's tensors.
    """
    indices: dict[int, int] = {}
    try:
        saved = _value(document["saved"], indices, 0)
        name, kind = str(document["name"]), str(document["kind"])
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise TensorFileError(f"expected the outline of a file of weights, got another value ({error})") from None
    found = own_state(Path(name), saved)
    shapes: dict[str, tuple[int, ...]] = {}
    places: dict[str, int | None] = {}
    lacking = {f"{path}.running_var": f"{path}.num_batches_tracked" for path in uncounted(found.names.values())}
    for old, new in found.names.items():
        tensor = found.state[old]
        shapes[new], places[new] = tuple(tensor.shape), indices[id(tensor)]
        if new in lacking:
            shapes[lacking[new]], places[lacking[new]] = (), None
    return Outline(shapes, places, kind != "safetensors", found.notes, found.architecture)


def _value(value: Mapping[str, Any], indices: dict[int, int], depth: int) -> Any:
    """A value of the file, with tensors on the meta device.

    Args:
        value: As JSON has it.
        indices: Receives the index of each tensor by the id of its object.
        depth: Number of mappings around it.
    """
    if "map" in value and depth <= DEEPEST:
        return {key: _value(inner, indices, depth + 1) for key, inner in value["map"]}
    if "tensor" in value:
        return _tensor(*value["tensor"], indices=indices)
    if "text" in value:
        return str(value["text"])
    return type(str(value["other"]).rpartition(".")[2][:100] or "object", (), {})()


def _tensor(index: int, dtype: str, shape: list[int], *, indices: dict[int, int]) -> Tensor:
    is_small = len(shape) <= MOST_AXES and all(type(side) is int and 0 <= side <= LONGEST_AXIS for side in shape)
    if not is_small or type(index) is not int or len(indices) >= MOST_TENSORS:
        raise ValueError(f"a tensor of shape {str(shape)[:80]}")
    tensor = torch.empty(shape, dtype=_DTYPES[dtype], device="meta")
    indices[id(tensor)] = index
    return tensor
