"""Re-parametrised layers are cloned as the plain layers that they stand for."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.errors import NetworkError
from pnc_core.graph.features import Reader
from pnc_core.graph.folding import folded
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.module.composed import attach, detach
from pnc_core.module.tail import open_tail, verify
from tests.unit.pnc_core import nets

Network = tuple[nn.Module, NetworkSpec]


class _Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def _pruned(layer: nn.Module) -> None:
    prune.ln_structured(layer, "weight", 0.3, n=2, dim=0)
    prune.random_unstructured(layer, "weight", 0.2)
    prune.l1_unstructured(layer, "bias", 0.5)


def _stacked(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer)
    parametrize.register_parametrization(layer, "bias", _Doubled())


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "weight norm hook": nn.utils.weight_norm,
    "spectral norm hook": nn.utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "several": _stacked,
    "pruning": _pruned,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.*:FutureWarning")


def _network(change: Callable[[nn.Module], object] | None, seed: int, classes: str) -> Network:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, len(classes)),
    ]  # fmt: skip
    network = nn.Sequential(*layers).eval()
    if change is not None:
        for layer in (network[2], network[5]):
            change(layer)
    return network.eval(), nets.spec("own", 8, 1, classes)


@pytest.mark.parametrize("way", WAYS)
def test_a_network_with_re_parametrised_layers_is_cloned_attached_and_detached(way: str) -> None:
    source, target = _network(WAYS[way], 0, "cde"), _network(WAYS[way], 1, "ab")
    before = [fingerprint(network) for network, _ in (source, target)]
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    images = ImageSet(pixels, torch.arange(40) % 4, ("a", "b", "d", "e"))
    config = CloneConfig(
        classes=("d", "e"), position=Position(target="4", source="1"), epochs=1, views=1, batch_size=16, max_size=2
    )
    bundle = clone(target, source, images, config)
    x = nets.pictures(3, target[1])
    with torch.no_grad():
        old = target[0](x)
        composed = attach(target[0], bundle, source[0], spec=target[1])
        assert torch.equal(Reader(composed.traced, [])(x)[0], old)
        assert bool(torch.isfinite(composed(x)).all())
        assert detach(composed) is target[0]
        assert torch.equal(target[0](x), old)
    assert [fingerprint(network) for network, _ in (source, target)] == before
    assert bundle.manifest.sizes.source == trace(*_network(None, 0, "cde")).parameter_count


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_the_tail_holds_the_weights_that_the_layers_compute(way: str) -> None:
    network, spec = _network(WAYS[way], 0, "cde")
    names, hooks = set(network.state_dict()), [len(m._forward_pre_hooks) for m in network.modules()]
    kinds = [type(m) for m in network.modules()]
    traced, plain = trace(network, spec), trace(*_network(None, 0, "cde"))
    tail = open_tail(traced, "1", [0, 1])
    network(nets.pictures(1, spec))  # the hooks compute the weights
    assert torch.equal(tail.part.get_parameter("5.weight"), network[5].weight)
    assert {g.name for g in tail.groups} == {"2", "5"}
    assert set(traced.graph_module.state_dict()) == set(plain.graph_module.state_dict())
    verify(tail, traced, [0, 1])
    assert set(network.state_dict()) == names
    assert [type(m) for m in network.modules()] == kinds
    assert [len(m._forward_pre_hooks) for m in network.modules()] == hooks


def test_a_network_with_plain_weights_is_not_copied() -> None:
    network, _ = _network(None, 0, "abc")
    assert folded(network) is network


@pytest.mark.parametrize("way", WAYS)
def test_the_copy_shares_all_other_tensors(way: str) -> None:
    network, _ = _network(WAYS[way], 0, "abc")
    twin = folded(network)
    assert twin[0].weight is network[0].weight
    assert twin[3].running_mean is network[3].running_mean
    assert type(twin[5].weight) is nn.Parameter
    assert type(twin[5]) is nn.Conv2d
    assert {*twin[5].state_dict()} == {"weight", "bias"}


def test_a_parametrised_buffer_stays_a_buffer() -> None:
    norm = nn.BatchNorm2d(3).eval()
    parametrize.register_parametrization(norm, "running_mean", _Doubled())
    twin = folded(nn.Sequential(norm))[0]
    assert "running_mean" in dict(twin.named_buffers())
    assert type(twin) is nn.BatchNorm2d


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    network, spec = _network(WAYS["pruning"], 0, "abc")
    network.lock = threading.Lock()
    with pytest.raises(NetworkError, match=r"that copy\.deepcopy can copy, .* TypeError: .*lock.*; fold them"):
        trace(network, spec)


def test_a_folded_layer_is_independent_of_the_given_one() -> None:
    network, spec = _network(WAYS["pruning"], 0, "abc")
    before = copy.deepcopy(network.state_dict())
    open_tail(trace(network, spec), "1", [0]).part.get_parameter("5.weight").data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
