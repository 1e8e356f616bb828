"""Check that a network gives finite logits, and the same logits again for the same images."""

import torch
from torch import Tensor, nn

from pnc_core.errors import NetworkError
from pnc_core.graph.positions import Traced

IMAGES = 3
TOLERANCE = 1e-3
"""Largest difference of two logits, relative to the largest logit, that rounding may cause."""


@torch.no_grad()
def check_answers(network: nn.Module, traced: Traced) -> None:
    """Run a network twice on the same random images, and compare it with its traced graph.

    Args:
        network: A network in eval mode, not on the device `meta`; not changed.
        traced: The same network, traced.

    Raises:
        NetworkError: the logits are NaN or infinite, differ between the runs, or are not those of the traced graph.
    """
    device = traced.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        x = torch.randn(IMAGES, *traced.spec.input_size).to(device)
        first, second = network(x), network(x)
        if not bool(torch.isfinite(first).all()):
            raise NetworkError(
                "network: expected finite logits for random images, got NaN or infinity; check its weights and the "
                "statistics of its normalisation layers"
            )
        _check_equal(first, second, "the same logits when run twice on the same images", _NOT_RANDOM)
        for some, logits in ((x[:1], network(x[:1])), (x, first)):
            name = f"its own logits when traced ({len(some)} images)"
            _check_equal(logits, traced.graph_module(some), name, _FIXED)


_NOT_RANDOM = (
    "use no random numbers and no counters in forward, and call F.dropout with training=self.training, so that eval "
    "mode turns it off"
)
_FIXED = "its forward must do the same for every number of images"


def _check_equal(expected: Tensor, got: Tensor, what: str, advice: str) -> None:
    difference, largest = float((expected - got).abs().max()), float(expected.abs().max())
    if not difference <= TOLERANCE * largest:
        raise NetworkError(f"network: expected {what}, got logits that differ by up to {difference:.3g}; {advice}")
