"""Read the weights of one network from any file that a training script saved; code in it is not run.

`torch.load` runs with `weights_only`, and a short list of harmless classes is allowed besides. The user's own machine
reads such files. The service takes safetensors alone.
"""

import argparse
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the name of torch's error; nothing is unpickled with it
from types import SimpleNamespace
from typing import Any

import numpy
import safetensors.torch
import torch
from torch import Tensor

from pnc_core.errors import TensorFileError, is_out_of_memory
from pnc_core.networks.files import Take, kind_of
from pnc_core.networks.names import own_names, uncounted
from pnc_core.networks.states import find_state
from pnc_core.tensorfile import read_header

_ARRAY = numpy.ndarray((0,)).__reduce__()[0]
_SCALAR = numpy.float64(0).__reduce__()[0]
SAFE: list[Any] = [
    argparse.Namespace, SimpleNamespace, dict, list, int, float, str, set, tuple,
    numpy.ndarray, numpy.dtype, *{type(numpy.dtype(code)) for code in "?bBhHiIlLqQefdSU"},
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]  # fmt: skip
"""Classes that hold values and run no code of the file: arguments of a training script, and numpy's numbers."""
_CLASS = re.compile(r"(?:GLOBAL|class) '?([\w.]+)")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one network."""

    tensors: dict[str, Tensor]
    """By the network's own names: float32 or whole numbers, contiguous, each with its own memory."""
    ordered: bool
    """Whether the tensors come in the network's order; safetensors files lose it."""
    notes: tuple[str, ...]
    """One line for each thing that was chosen, changed or left out."""
    architecture: str | None = None
    """The name that the training script noted, such as timm's `arch`."""


def read_checkpoint(path: Path, take: Take | None = None) -> Checkpoint:
    """Read a file of weights of any kind.

    Args:
        path: Safetensors, or a file that `torch.save` wrote.
        take: Plain weights or their moving average, where the file has both; by default the plain ones.

    Raises:
        TensorFileError: the file is damaged, or holds other things than the tensors of one network.
        OSError: it cannot be read.
    """
    kind = kind_of(path)
    if kind == "safetensors":
        read_header(path)
        saved: Any = safetensors.torch.load_file(path)
    else:
        saved = _loaded(path, kind)
    found = own_state(path, saved, take)
    tensors = {new: _plain(path, old, found.state[old]) for old, new in found.names.items()}
    return Checkpoint(_counted(tensors), kind != "safetensors", found.notes, found.architecture)


@dataclass(frozen=True)
class OwnState:
    """The tensors of one network among the objects of a file."""

    state: dict[str, Tensor]
    """By the names in the file."""
    names: dict[str, str]
    """The network's own name by the name in the file; tensors without one are left out."""
    notes: tuple[str, ...]
    architecture: str | None


def own_state(path: Path, saved: Any, take: Take | None = None) -> OwnState:
    """Find the tensors of one network; their numbers are not read, so that they may lie on the meta device.

    Args:
        path: The file, for messages.
        saved: The objects that the file holds.
        take: Plain weights or their moving average.

    Raises:
        TensorFileError: the objects hold no network's tensors.
    """
    state, notes = find_state(path, saved, take)
    names = own_names(state.keys())
    left = [name for name in state if name not in names]
    notes += [f"left out {', '.join(left[:4])}{' ...' if len(left) > 4 else ''}"] if left else []
    notes += _dtypes({name: state[name] for name in names})
    arch = saved.get("arch") if isinstance(saved, Mapping) else None
    return OwnState(state, names, tuple(notes), arch if isinstance(arch, str) else None)


def write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as a safetensors file."""
    safetensors.torch.save_file(dict(tensors), path)


def _loaded(path: Path, kind: str) -> Any:
    if kind == "zip":
        _check_archive(path)
    try:
        with torch.serialization.safe_globals(SAFE), path.open("rb") as file:  # by name it would look at the suffix
            # The one place that may: `weights_only` reads tensors and containers and refuses everything that runs
            # code, and the file is the user's own.
            return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise errors of any kind in torch's reader
        if is_out_of_memory(error):
            raise
        raise TensorFileError(f"{path}: expected {_expected(error)}") from None


def _expected(error: Exception) -> str:
    found = _CLASS.search(str(error)) if isinstance(error, UnpicklingError) else None
    if found is None:
        text = _ESCAPES.sub("", str(error)).strip() or type(error).__name__
        return f"a whole file from torch.save, got one that does not read ({text.splitlines()[0][:120]}); save it again"
    name = found.group(1)
    return f"tensors by name, got an object of {name}; load the file in your own code and save model.state_dict()"


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise TensorFileError(f"{path}: expected a whole file, got a damaged one ({error}); save it again") from None
    if "constants.pkl" in parts:
        raise TensorFileError(
            f"{path}: expected weights, got a TorchScript program; save torch.jit.load({path.name!r}).state_dict()"
        )
    if "data.pkl" not in parts:
        raise TensorFileError(
            f"{path}: expected weights from torch.save, got another zip archive; save model.state_dict()"
        )


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    """A dense copy with memory of its own; fractions become float32."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} {tensor.dtype} on {tensor.device}"
        raise TensorFileError(f"{path}: tensor {name!r}: expected real numbers in dense form, got {kind} ones")
    wide = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    return wide.clone(memory_format=torch.contiguous_format)


def _dtypes(tensors: Mapping[str, Tensor]) -> list[str]:
    kinds = {t.dtype for t in tensors.values() if t.is_floating_point() and t.dtype != torch.float32}
    verb = {kind: "narrowed" if kind == torch.float64 else "widened" for kind in kinds}
    return sorted(f"{str(kind).removeprefix('torch.')} {verb[kind]} to float32" for kind in kinds)


def _counted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With a counter of zero for every batch norm that has none: evaluation does not read it."""
    lacking = {f"{path}.running_var": f"{path}.num_batches_tracked" for path in uncounted(tensors.keys())}
    whole: dict[str, Tensor] = OrderedDict()
    for name, tensor in tensors.items():
        whole[name] = tensor
        if name in lacking:
            whole[lacking[name]] = torch.tensor(0)
    return dict(whole)
