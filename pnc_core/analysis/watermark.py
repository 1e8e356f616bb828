"""Detect a watermark in the choice of channels (`pnc_core.module.watermark`).

The channels of a bundle, or those that `pnc_core.analysis.origin` finds in another file, are compared with the bits of
a key. For a key that was not used, each comparison is a fair coin toss for every network, so the p-value is exact.

References:
    Own choice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pnc_core.analysis.origin import Origin
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import trace
from pnc_core.module.bundle import Bundle
from pnc_core.module.tail import open_tail
from pnc_core.module.watermark import Mark

PROVED = 1e-6
"""Below this p-value a mark is proved."""


@dataclass(frozen=True)
class Proof:
    """How well a choice of channels agrees with a key."""

    channels: int
    """Channels of the source that could be kept or not."""
    agreeing: int
    """Kept where the coin shows heads, left out where it shows tails."""
    p_value: float
    """That a key which had no part in the choice agrees as often: the tail of a binomial distribution, exactly."""

    @property
    def proved(self) -> bool:
        """Whether chance is out of the question."""
        return self.p_value < PROVED


def proof_in_bundle(mark: Mark, bundle: Bundle) -> Proof:
    """How well a bundle, thin or full, agrees with a key, by what it says of itself."""
    spec = bundle.manifest.source
    traced = trace(build_network(spec, device="meta"), spec)
    classes = [spec.classes.index(c) for c in bundle.manifest.classes]
    groups = open_tail(traced, bundle.manifest.position.source, classes).groups
    return _proof(mark, {g.name: (set(bundle.tensors[f"kept.{g.name}"].tolist()), g.width) for g in groups})


def proof_in_origin(mark: Mark, found: Origin) -> Proof:
    """How well the channels that were found in a stranger's file agree with a key."""
    kept: dict[str, tuple[set[int], int]] = {}
    for layer in found.layers:
        name = layer.source_layer.removesuffix(".weight")
        here = {row for row in layer.rows if row is not None}
        kept[name] = (kept.get(name, (set(), 0))[0] | here, layer.width)
    return _proof(mark, kept)


def _proof(mark: Mark, kept: Mapping[str, tuple[set[int], int]]) -> Proof:
    """Layers of which all is kept, or nothing, say nothing about a choice."""
    agreeing = channels = 0
    for layer, (chosen, width) in kept.items():
        if 0 < len(chosen) < width:
            heads = mark.heads(layer, width).tolist()
            agreeing += sum(heads[channel] == (channel in chosen) for channel in range(width))
            channels += width
    return Proof(channels, agreeing, binomial_tail(agreeing, channels))


def binomial_tail(heads: int, tosses: int) -> float:
    """Return the exact probability of `heads` or more among `tosses` fair coin tosses."""
    ways = few = math.comb(tosses, heads)
    for k in range(heads, tosses):  # each from the one before: from nothing every time, 24,000 tosses take minutes
        few = few * (tosses - k) // (k + 1)
        ways += few
    return ways / (1 << tosses)
