from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.errors import NetworkError
from pnc_core.graph.answers import check_answers
from pnc_core.graph.positions import trace
from tests.unit.pnc_core import nets


class _Then(nn.Module):
    """A plain network, then a function of its logits."""

    def __init__(self, function: Callable[[Tensor], Tensor] = lambda logits: logits) -> None:
        super().__init__()
        self.body, self.spec = nets.network("cnn", 8, 1, width=4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x))


def test_a_network_with_repeatable_answers_passes_and_draws_no_random_numbers() -> None:
    network = _Then().eval()
    state = torch.get_rng_state()
    check_answers(network, trace(network, network.spec))
    assert torch.equal(torch.get_rng_state(), state)


RANDOM = {
    "dropout that stays on": lambda logits: F.dropout(logits, 0.5, training=True),
    "a random number": lambda logits: logits + torch.rand(1),
    "random numbers for each logit": lambda logits: logits + torch.randn_like(logits),
}


@pytest.mark.parametrize("way", RANDOM)
def test_random_answers_are_refused(way: str) -> None:
    network = _Then(RANDOM[way]).eval()
    told = r"^network: expected the same logits when run twice on the same images, got .* training=self\.training"
    with pytest.raises(NetworkError, match=told):
        check_answers(network, trace(network, network.spec))


def test_a_counter_in_forward_is_refused() -> None:
    class Counting(_Then):
        def forward(self, x: Tensor) -> Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            return self.body(x) * self.calls  # type: ignore[no-any-return]

    network = Counting().eval()
    with pytest.raises(NetworkError, match="expected the same logits when run twice"):
        check_answers(network, trace(network, network.spec))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_answers_that_are_no_numbers_are_refused(number: float) -> None:
    network = _Then(lambda logits: logits * number).eval()
    with pytest.raises(NetworkError, match="expected finite logits for random images, got NaN or infinity; check its"):
        check_answers(network, trace(network, network.spec))


def test_a_network_that_treats_a_single_image_differently_is_refused() -> None:
    class Single(_Then):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(len(x.shape)):  # the shapes must be known, and two or three images take the same branch
                x = x + 0
            return self.body(x) * (2 if x.shape[0] == 1 else 1)  # type: ignore[no-any-return]

    network = Single().eval()
    with pytest.raises(
        NetworkError, match=r"expected its own logits when traced \(1 images\), got .*number of images$"
    ):
        check_answers(network, trace(network, network.spec))
