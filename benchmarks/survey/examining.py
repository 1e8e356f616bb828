"""Examine one architecture of timm at a small input size."""

import time
from contextlib import suppress
from dataclasses import replace

import torch

from benchmarks.survey.method import Record, examine, prunable_share
from pnc_core.config import NetworkSpec
from pnc_core.errors import PncError
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import Traced, trace
from pnc_core.module.tail import open_tail
from pnc_core.vision import timm_package

SMALLEST, STEP = 64, 32
"""Sizes that are tried. At 32 pixels the last maps of most networks have one cell, which hides spatial mistakes."""
CLASSES = ("a", "b", "c")

timm = timm_package()  # the slowest import of a child; done once, before the fork


def examine_structure(architecture: str) -> Record:
    """Find the smallest input size, trace the network without weights and count prunable channels at the middle."""
    started, facts = time.monotonic(), Record(architecture, 0)
    try:
        size, traced = _smallest(architecture)
        middle = traced.positions[len(traced.positions) // 2]
        facts = replace(
            facts,
            size=size,
            numbers=traced.parameter_count,
            positions=len(traced.positions),
            position=middle.name,
        )
        tail = open_tail(traced, middle.name, [0, 1])
        facts = replace(facts, groups=len(tail.groups), prunable_share=prunable_share(tail))
    except Exception as error:  # one architecture must not stop the run over all
        facts = replace(facts, problem=f"{type(error).__name__}: {error}".replace("\n", " ")[:400])
    return replace(facts, seconds=round(time.monotonic() - started, 1))


def examine_whole(architecture: str, size: int) -> Record:
    """Run the architecture through the whole method, on one thread."""
    torch.set_num_threads(1)
    return examine(architecture, size)


def _sizes(architecture: str) -> tuple[int, int]:
    """Height and width of the smallest images to try, and of the images that the architecture was made for."""
    assert timm is not None
    known = timm.get_pretrained_cfg(architecture.removeprefix("timm/"))
    if known is None:
        return SMALLEST, 224
    largest = max(known.input_size[1:])
    return min(largest, max(known.min_input_size[1:]) if known.min_input_size else SMALLEST), largest


def _smallest(architecture: str) -> tuple[int, Traced]:
    """The smallest size with which the network can be traced.

    Raises:
        PncError: the network cannot be traced at the size that it was made for.
    """
    smallest, largest = _sizes(architecture)
    with suppress(PncError):
        return smallest, _traced(architecture, smallest)
    at_largest = _traced(architecture, largest)
    for size in range(smallest + STEP, largest, STEP):
        with suppress(PncError):
            return size, _traced(architecture, size)
    return largest, at_largest


def _traced(architecture: str, size: int) -> Traced:
    spec = NetworkSpec(
        architecture=architecture, classes=CLASSES, input_size=(3, size, size), mean=(0.5,) * 3, std=(0.25,) * 3
    )
    return trace(build_network(spec, device="meta"), spec)
