"""The cost of a network: numbers and multiply-accumulates."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Cost of a part of a module."""

    parameter_count: int
    """Number of values in parameters and buffers."""
    macs: int
    """Multiply-accumulates per image."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameter_count + other.parameter_count, self.macs + other.macs)

    def capped(self, most: "Cost") -> "Cost":
        """The minimum of both costs, field by field."""
        return Cost(min(self.parameter_count, most.parameter_count), min(self.macs, most.macs))

    def within(self, most: "Cost") -> bool:
        """Is it within both limits?"""
        return self.parameter_count <= most.parameter_count and self.macs <= most.macs


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-accumulates of one call of `run`: half the floating-point operations that torch counts."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops()) // 2
