"""Arguments of `forward`: the images alone are traced."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pnc_core.errors import NetworkError
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import trace
from tests.unit.pnc_core import nets


class _Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, spec = nets.network("cnn", 8, 1, width=4)
        self.spec = spec


class _Several(_Wrapped):
    def forward(self, *xs: Tensor) -> Tensor:
        return self.body(xs[0])  # type: ignore[no-any-return]


class _Unpacked(_Wrapped):
    def forward(self, *xs: Tensor, scale: float = 2.0) -> Tensor:
        (x,) = xs
        return self.body(x) * scale  # type: ignore[no-any-return]


class _WithRest(_Wrapped):
    def forward(self, x: Tensor, *rest: Tensor, **options: Any) -> Tensor:
        for other in rest:
            x = x + other
        return self.body(x) * (3 if options.get("thrice") else 1)  # type: ignore[no-any-return]


class _WithDefault(_Wrapped):
    def forward(self, x: Tensor | None = None) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [_Several, _Unpacked, _WithRest, _WithDefault])
@torch.no_grad()
def test_the_first_positional_argument_takes_the_images(kind: type[_Wrapped]) -> None:
    network = kind().eval()
    traced, x = trace(network, network.spec), nets.pictures(2, network.spec)
    names = [p.name for p in traced.positions]
    assert names == ["input", *(f"body.blocks.{i}" for i in range(4))]
    assert torch.equal(Reader(traced, names)(x)[0], network(x))


class _Pair(_Wrapped):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.body(x + y)  # type: ignore[no-any-return]


class _Named(_Wrapped):
    def forward(self, *, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (_Pair, "a forward that needs the images only, got one that needs 'y' as well; give that argument a default"),
        (_Named, r"forward\(images\), got forward\(x: .*\); wrap the network"),
    ],
)
def test_a_network_that_needs_more_than_the_images_is_refused(kind: type[_Wrapped], told: str) -> None:
    network = kind().eval()
    with pytest.raises(NetworkError, match=f"^network: expected {told}"):
        trace(network, network.spec)
