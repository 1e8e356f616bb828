"""Put a watermark into the choice of channels.

The key gives every channel of the source one fair bit:

    bit(layer, c) = lowest bit of the first byte of HMAC-SHA-256(key, "layer|c")

Localization adds a small bias to the rank r_c of a channel, where r_c lies in [-1, 1] (`pnc_core.method.mask.ranks`):

    r_c + 0.35 (2 bit(layer, c) - 1)

Channels of high rank stay, channels of low rank are removed, and the key decides about the channels in between.
`pnc_core.analysis.watermark` detects the watermark.

References:
    Own choice. The copied weights equal the source's weights, and anybody can train adapters and head again within
    seconds. Only the choice of channels stays in a copied module.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pnc_core.errors import ConfigError
from pnc_core.graph.groups import ChannelGroup

KEY_BYTES = 32
BIAS_STRENGTH = 0.35
"""Amount by which a bit moves a channel's rank. Ranks lie in [-1, 1]."""


@dataclass(frozen=True)
class Mark:
    """A watermark: a secret key of 32 bytes, and the bits that the key gives to channels.

    Raises:
        ConfigError: the key does not have 32 bytes.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ConfigError(f"mark: expected a key of {KEY_BYTES} bytes, got {len(self.key)}")

    @property
    def commitment(self) -> str:
        """Digest of the key, `sha256:` and 64 hexadecimal digits.

        The owner may publish the digest early and show the key later.
        """
        return f"sha256:{hashlib.sha256(self.key).hexdigest()}"

    def bits(self, layer: str, width: int) -> Tensor:
        """The bits of a source layer's output channels, bool (width,)."""
        digests = (hmac.digest(self.key, f"{layer}|{channel}".encode(), "sha256") for channel in range(width))
        return torch.tensor([digest[0] & 1 for digest in digests]).bool()

    def importance_bias(self, groups: Iterable[ChannelGroup]) -> dict[str, Tensor]:
        """Bias of every channel's rank: +0.35 where the bit is 1, -0.35 where it is 0; float32 (width,) by group."""
        return {g.name: BIAS_STRENGTH * (self.bits(g.name, g.width).float() * 2 - 1) for g in groups}
