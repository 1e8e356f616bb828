"""Weights that `torch.save` wrote; code in them is not run."""

from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the name of what torch raises; nothing is unpickled with it
from typing import Any

import torch

from pnc_core.errors import TensorFileError

_INSIDE = ("state_dict", "model_state_dict", "model")
"""Where training scripts keep the tensors within what they save."""
_WRAPPER = "module."
"""What `torch.nn.DataParallel` puts before every name."""


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that `torch.save` wrote; code in it is not run.

    Raises:
        TensorFileError: it holds anything but tensors, or none.
    """
    try:
        # The one place that may: `weights_only` reads tensors and containers and refuses everything that runs code,
        # and the file is the user's own.
        saved = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TensorFileError(
            f"{path}: expected a state dict saved with torch.save, got a file that is not one ({reason}); "
            "save model.state_dict(), or convert it to safetensors yourself"
        ) from None
    return _contiguous(_tensors(path, saved))


def _tensors(path: Path, saved: Any) -> dict[str, torch.Tensor]:
    for name in _INSIDE:
        if isinstance(saved, dict) and isinstance(saved.get(name), dict):
            saved = saved[name]
            break
    if not isinstance(saved, dict) or not saved or not all(isinstance(t, torch.Tensor) for t in saved.values()):
        got = (
            f"{type(saved).__name__} of {sorted(map(str, saved))[:5]}" if isinstance(saved, dict) else repr(type(saved))
        )
        raise TensorFileError(f"{path}: expected names and tensors, got {got}; save model.state_dict()")
    if all(name.startswith(_WRAPPER) for name in saved):
        return {name.removeprefix(_WRAPPER): tensor for name, tensor in saved.items()}
    return saved


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of their own: tensors that share memory cannot be written to safetensors."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
