"""Choose the device and the precision of networks, from torch's own information about the machine.

`bfloat16` is two to three times faster than float32 on a device with instructions for it, and up to twenty times slower
on a device without them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pnc_core.config import Precision
from pnc_core.errors import ConfigError

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""torch's names of the bfloat16 instructions of x86 and ARM processors."""


class SlowPrecision(UserWarning):
    """The job uses bfloat16 on a device where it is slower than float32."""


def device_of(wanted: str) -> str:
    """Resolve a device name.

    Args:
        wanted: `auto` (CUDA if available, else CPU), or torch's name of a device: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        ConfigError: a CUDA device is wanted, and torch cannot use CUDA.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        built = "built without CUDA" if torch.version.cuda is None else "without a GPU that it can use"
        raise ConfigError(f"device: expected one that torch can use, got {wanted!r} and a torch {built}; choose cpu")
    return wanted


def has_bfloat16(device: torch.device | str) -> bool:
    """Has this device instructions for bfloat16?

    For a CPU: torch must report the instructions, and oneDNN must be allowed to use them (it is not with
    `ONEDNN_MAX_CPU_ISA=AVX2` or lower). `ATEN_CPU_CAPABILITY` has no effect, because oneDNN computes the layers.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch 2.6 to 2.10 do not have this function
    found = ask() if ask else {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
    usable: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return usable and any(found.get(name, False) for name in _INSTRUCTIONS)


def precision_of(wanted: Precision, device: torch.device | str) -> Precision:
    """Resolve a precision: `auto` is bfloat16 if the device has instructions for it, else float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if has_bfloat16(device) else "float32"


def slow_bfloat16(precision: Precision, device: torch.device | str) -> str | None:
    """Warning for bfloat16 on a device without instructions for it; None if there is nothing to warn of."""
    if precision != "bfloat16" or has_bfloat16(device):
        return None
    return (
        f"precision: bfloat16 is slower than float32 here, as {torch.device(device).type} has no instructions for it; "
        "auto chooses the faster precision"
    )


@contextmanager
def full_precision() -> Iterator[None]:
    """Context manager and decorator that disables autocast, so closed-form solutions use float32 or float64."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
