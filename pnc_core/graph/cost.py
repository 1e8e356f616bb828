"""What a network's answer costs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What a part of a module costs."""

    parameter_count: int
    """Parameters and buffers."""
    macs: int
    """Multiply-accumulates of one image."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameter_count + other.parameter_count, self.macs + other.macs)

    def capped(self, most: "Cost") -> "Cost":
        """The lesser of both, number by number."""
        return Cost(min(self.parameter_count, most.parameter_count), min(self.macs, most.macs))

    def within(self, most: "Cost") -> bool:
        """Is it above `most` in nothing?"""
        return self.parameter_count <= most.parameter_count and self.macs <= most.macs


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-accumulates of whatever `run` computes, as torch's own counter sees them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops()) // 2
