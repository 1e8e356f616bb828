"""Find a network's tensors within the objects that a training script saved beside them.

References:
    Own choice. The names are those of PyTorch's examples, torchvision's references, timm, Lightning and common scripts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from pnc_core.errors import TensorFileError
from pnc_core.networks.files import Take
from pnc_core.networks.names import AVERAGED, PLAIN

_DEEPEST = 4


@dataclass(frozen=True)
class _State:
    place: str
    """Keys that lead there, such as `model.state_dict`; empty: the file itself."""
    take: Take
    tensors: dict[str, Any]


def find_state(path: Path, saved: Any, take: Take | None) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of one network within what a file holds, by the names in the file.

    Args:
        path: The file, for messages.
        saved: What was loaded from it.
        take: Plain weights or their moving average; None: the plain ones if there are any.

    Returns:
        Tensors by name, and a line for each choice.

    Raises:
        TensorFileError: there are no tensors, or none of the wanted kind.
    """
    found = list(_states(saved, "", "plain", 0))
    if not found:
        raise TensorFileError(f"{path}: expected names and tensors, got {_summary(saved)}; save model.state_dict()")
    kinds: list[Take] = [state.take for state in found]
    wanted = take or ("plain" if "plain" in kinds else "ema")
    if wanted not in kinds:
        raise TensorFileError(f"{path}: expected {wanted} weights, got {kinds[0]} ones alone; leave --weights out")
    chosen = found[kinds.index(wanted)]
    tensors = {name: _tensor(value) for name, value in chosen.tensors.items() if _is_numbers(value)}
    return tensors, _choices(found, chosen)


def _choices(found: list[_State], chosen: _State) -> list[str]:
    notes = []
    if len({state.take for state in found}) > 1:
        other = "ema" if chosen.take == "plain" else "plain"
        text = f"took the {chosen.take} weights ({chosen.place}); --weights {other} takes the {other} ones"
        notes.append(text)
    elif chosen.take == "ema":
        notes.append(f"took the ema weights ({chosen.place}): there are no others")
    left = [name for name, value in chosen.tensors.items() if not _is_numbers(value)]
    return [*notes, *([f"left out {', '.join(left[:4])}, no tensors"] if left else [])]


def _states(saved: Any, place: str, take: Take, depth: int) -> Iterator[_State]:
    """State dicts under known keys; the mapping itself where it has none."""
    if not isinstance(saved, Mapping) or depth > _DEEPEST:
        return
    inner: list[_State] = []
    for keys, kind in ((PLAIN, take), (AVERAGED, "ema")):
        for key in keys:
            inner += _states(saved.get(key), f"{place}.{key}".strip("."), kind, depth + 1)  # type: ignore[arg-type]
    if inner:
        yield from inner
        return
    named = {name: value for name, value in saved.items() if isinstance(name, str)}
    averaged = {n: v for n, v in named.items() if n.partition(".")[0] in AVERAGED and "." in n}
    plain = {n: v for n, v in named.items() if n not in averaged}
    for kind, tensors, at in ((take, plain, place), ("ema", _shortened(averaged), f"{place}.ema".strip("."))):
        if any(_is_numbers(value) for value in tensors.values()):
            yield _State(at or "the file itself", kind, tensors)


def _shortened(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.partition(".")[2]: value for name, value in tensors.items()}


def _is_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, numpy.ndarray) and value.dtype.kind in "fiub")


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(numpy.ascontiguousarray(value).reshape(value.shape))


def _summary(saved: Any) -> str:
    if isinstance(saved, Mapping):
        return f"a {type(saved).__name__} of {sorted(map(str, saved))[:5]}"
    return f"an object of {type(saved).__name__}"
