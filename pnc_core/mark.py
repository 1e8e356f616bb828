"""A mark in the choice of channels, which the holder of a key can prove later.

Copied numbers are the source's bit for bit, and adapters and head are learned anew in
seconds by whoever has the slices. What stays with the slices is *which* channels were
kept. The key tosses a coin for every channel of the source, and localization leans towards those whose
coin shows heads: channels that matter much stay, channels that matter little go, and in
between the key decides. Who finds the channels again (`pnc_core.origin`) counts how often
coin and choice agree. For a key that had no part in it, every agreement is a fair toss, whatever
the network is, so that the p-value is exact.

References:
    Own choice.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pnc_core.bundle import Bundle
from pnc_core.channels import ChannelGroup
from pnc_core.coins import at_least
from pnc_core.errors import ConfigError
from pnc_core.extract import open_tail
from pnc_core.localize import Scores
from pnc_core.networks import build_network
from pnc_core.origin import Origin
from pnc_core.positions import trace

KEY_BYTES = 32
LEAN = 0.35
"""How far a coin moves a channel in the order of worth, whose ends are -1 and 1."""
PROVED = 1e-6
"""Below this p-value a mark is proved."""


@dataclass(frozen=True)
class Mark:
    """A key and the coins that it tosses.

    Raises:
        ConfigError: the key is too short or too long.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ConfigError(f"mark: expected a key of {KEY_BYTES} bytes, got {len(self.key)}")

    @property
    def commitment(self) -> str:
        """What may be shown before the key is: `sha256:` and 64 hexadecimal digits."""
        return f"sha256:{hashlib.sha256(self.key).hexdigest()}"

    def heads(self, layer: str, width: int) -> Tensor:
        """For every channel that a layer of the source makes, whether its coin shows heads: bool (width,)."""
        tosses = (hmac.digest(self.key, f"{layer}|{channel}".encode(), "sha256")[0] & 1 for channel in range(width))
        return torch.tensor(list(tosses)).bool()

    def lean(self, groups: Iterable[ChannelGroup]) -> Scores:
        """What is added to the worth of every channel, float32 (width,) by group."""
        return {g.name: LEAN * (self.heads(g.name, g.width).float() * 2 - 1) for g in groups}


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
    return Proof(channels, agreeing, at_least(agreeing, channels))
