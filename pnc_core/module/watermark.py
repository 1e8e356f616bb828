"""Put a watermark into the choice of channels.

The key decides one fair bit for every channel of the source (HMAC-SHA-256 of layer and channel index).
Localization adds a small bias to the importance of each channel whose bit is one. Important channels stay,
unimportant channels go, and the key decides between them. `pnc_core.analysis.watermark` detects the watermark.

References:
    Own choice: copied weights equal the source's, and adapters and head can be learned again in seconds, so only the
    choice of channels stays with a copied module.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pnc_core.errors import ConfigError
from pnc_core.graph.groups import ChannelGroup
from pnc_core.method.localize import Scores

KEY_BYTES = 32
BIAS_STRENGTH = 0.35
"""How far a coin moves a channel in the order of worth, whose ends are -1 and 1."""


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

    def importance_bias(self, groups: Iterable[ChannelGroup]) -> Scores:
        """What is added to the worth of every channel, float32 (width,) by group."""
        return {g.name: BIAS_STRENGTH * (self.heads(g.name, g.width).float() * 2 - 1) for g in groups}
