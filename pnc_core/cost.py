"""What a network's answer costs."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-accumulates of whatever `run` computes, as torch's own counter sees them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops()) // 2
