"""Where networks run and in which precision: torch is asked, never the machine's files.

`bfloat16` is twice to three times as fast as float32 where a processor has instructions for it, and up to twenty times
slower where it has none.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pnc_core.config import Precision
from pnc_core.errors import ConfigError

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Of x86 and of ARM, as torch names them."""


class SlowPrecision(UserWarning):
    """bfloat16 was asked for where it is slower than float32."""


def device_of(wanted: str) -> str:
    """The device that `auto` means here, or the wanted one if it can be had.

    Args:
        wanted: `auto`, or as torch names it: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        ConfigError: CUDA is wanted and torch has none.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        built = "built without CUDA" if torch.version.cuda is None else "without a GPU that it can use"
        raise ConfigError(f"device: expected one that torch can use, got {wanted!r} and a torch {built}; choose cpu")
    return wanted


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has instructions for bfloat16.

    Of a processor this is what torch says of it, less what oneDNN has been told to leave alone
    (`ONEDNN_MAX_CPU_ISA=AVX2` or lower). `ATEN_CPU_CAPABILITY` changes nothing: layers are oneDNN's.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch 2.6 to 2.10 have another way
    found = ask() if ask else {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
    usable: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return usable and any(found.get(name, False) for name in _INSTRUCTIONS)


def precision_of(wanted: Precision, device: torch.device | str) -> Precision:
    """The precision that `auto` means on a device; any other is what it is."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if has_bfloat16(device) else "float32"


def slow_bfloat16(precision: Precision, device: torch.device | str) -> str | None:
    """What to tell people who asked for bfloat16 on a device without it; None: all is well."""
    if precision != "bfloat16" or has_bfloat16(device):
        return None
    return (
        f"precision: bfloat16 is slower than float32 here, as {torch.device(device).type} has no instructions for it; "
        "auto chooses what is quicker"
    )


@contextmanager
def full_precision() -> Iterator[None]:
    """Without autocast, of the job and of whoever called: what is solved in closed form is float32 or float64."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
