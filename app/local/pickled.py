"""Read weights that `torch.save` wrote, without running code in the file."""

from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - only the exception that torch raises
from typing import Any

import torch

from pnc_core.errors import TensorFileError

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts save the state dict."""
_DATA_PARALLEL = "module."
"""Prefix that `torch.nn.DataParallel` adds to each name."""


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file that `torch.save` wrote; code in the file is not run.

    Raises:
        TensorFileError: the file holds no tensors, or values other than tensors.
    """
    try:
        # The only use of torch.load: `weights_only` reads tensors and containers and refuses code, and the file
        # belongs to the user.
        saved = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TensorFileError(
            f"{path}: expected a state dict saved with torch.save, got another file ({reason}); "
            "save model.state_dict(), or convert the file to safetensors"
        ) from None
    return _contiguous(_tensors(path, saved))


def _tensors(path: Path, saved: Any) -> dict[str, torch.Tensor]:
    for name in _STATE_DICT_KEYS:
        if isinstance(saved, dict) and isinstance(saved.get(name), dict):
            saved = saved[name]
            break
    if not isinstance(saved, dict) or not saved or not all(isinstance(t, torch.Tensor) for t in saved.values()):
        got = (
            f"{type(saved).__name__} of {sorted(map(str, saved))[:5]}" if isinstance(saved, dict) else repr(type(saved))
        )
        raise TensorFileError(f"{path}: expected names and tensors, got {got}; save model.state_dict()")
    if all(name.startswith(_DATA_PARALLEL) for name in saved):
        return {name.removeprefix(_DATA_PARALLEL): tensor for name, tensor in saved.items()}
    return saved


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Separate copies, because safetensors cannot store tensors that share memory."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
