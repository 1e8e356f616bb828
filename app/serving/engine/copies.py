"""Copies of networks that torch runs faster: batch norms folded into the preceding layer, or compiled.

Each copy is compared with its original before it is used.
"""

import linecache
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.fx import graph_module

from app.serving.engine.modes import Mode
from app.serving.engine.parts import Tensors

log = logging.getLogger(__name__)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest difference between a copy and its original, as a share of the largest number; they round differently."""
EXAMPLES = 3
"""Number of images for comparing a copy."""
Run = Callable[..., Tensors]
"""A function from tensors to tensors."""


def prepared(original: nn.Module, make_copy: Callable[[], nn.Module], examples: Tensors, mode: Mode) -> Run:
    """A faster copy of a network. In exact mode, or if the copy's answers differ, the original.

    Args:
        original: The original layers.
        make_copy: Makes the copy.
        examples: Inputs for comparing both.
        mode: How the copy is prepared.
    """
    if mode.exact:
        return original
    with torch.inference_mode():
        try:
            made = make_copy().eval()
            run: Run = torch.compile(made, dynamic=False) if mode.compile else made
            wrong = difference(run(*examples), original(*examples))
        except Exception as error:  # copying may fail in any way; the original always works
            log.warning("run without a faster copy, because making it failed: %s", error)
            return original
    if not wrong <= TOLERANCE[mode.precision]:
        log.warning("run without a faster copy, because its answers differ by %g of the largest number", wrong)
        return original
    return run


def forget_sources(mode: Mode) -> None:
    """Free the texts of generated code.

    torch.fx keeps the text of each graph module's code for tracebacks, until the process ends. A module takes a dozen
    such texts, and modules come and go. torch.compile may read them again.
    """
    if mode.compile:
        return
    sources: dict[str, str] = graph_module._loader.eval_cache
    for key in list(sources):
        sources.pop(key, None)
        linecache.cache.pop(key, None)


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference, as a share of the largest number of the tensor."""
    pairs = ((f.float(), w.float()) for f, w in zip(found, wanted, strict=True))
    return max(float((f - w).abs().max() / w.abs().max().clamp_min(1e-12)) for f, w in pairs)
