"""Detect a watermark in the choice of channels (`pnc_core.module.watermark`).

The bits of a key are compared with the channels of a bundle, or with the channels that `pnc_core.analysis.origin` finds
in another file. Under the null hypothesis (the key was not used) every comparison is a fair coin toss, whatever the
network. So the p-value is exact: with a agreements in n comparisons,

    p = 2^-n sum_{k=a}^{n} C(n, k).

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
    """How well a choice of channels agrees with the bits of a key."""

    channels: int
    """Number n of compared channels of the source."""
    agreeing: int
    """Number of channels that are kept and have bit 1, or are removed and have bit 0."""
    p_value: float
    """Probability that an unrelated key agrees in `agreeing` or more channels: the exact binomial tail."""

    @property
    def proved(self) -> bool:
        """Whether the p-value is below `PROVED`."""
        return self.p_value < PROVED


def proof_in_bundle(mark: Mark, bundle: Bundle) -> Proof:
    """Compare a key with the kept channels that a bundle lists; the bundle may be thin or full."""
    spec = bundle.manifest.source
    traced = trace(build_network(spec, device="meta"), spec)
    classes = [spec.classes.index(c) for c in bundle.manifest.classes]
    groups = open_tail(traced, bundle.manifest.position.source, classes).groups
    return _proof(mark, {g.name: (set(bundle.tensors[f"kept.{g.name}"].tolist()), g.width) for g in groups})


def proof_in_origin(mark: Mark, found: Origin) -> Proof:
    """Compare a key with the source channels that `pnc_core.analysis.origin` found in another file."""
    kept: dict[str, tuple[set[int], int]] = {}
    for layer in found.layers:
        name = layer.source_layer.removesuffix(".weight")
        here = {row for row in layer.rows if row is not None}
        kept[name] = (kept.get(name, (set(), 0))[0] | here, layer.width)
    return _proof(mark, kept)


def _proof(mark: Mark, kept: Mapping[str, tuple[set[int], int]]) -> Proof:
    """Count agreements; layers whose channels are all kept or all removed show no choice and are skipped."""
    agreeing = channels = 0
    for layer, (chosen, width) in kept.items():
        if 0 < len(chosen) < width:
            bits = mark.bits(layer, width).tolist()
            agreeing += sum(bits[channel] == (channel in chosen) for channel in range(width))
            channels += width
    return Proof(channels, agreeing, binomial_tail(agreeing, channels))


def binomial_tail(heads: int, tosses: int) -> float:
    """Return the exact probability of `heads` or more among `tosses` fair coin tosses."""
    total = term = math.comb(tosses, heads)
    # C(n, k + 1) = C(n, k) (n - k) / (k + 1). Calling math.comb for every term takes minutes for 24,000 tosses.
    for k in range(heads, tosses):
        term = term * (tosses - k) // (k + 1)
        total += term
    return total / (1 << tosses)
